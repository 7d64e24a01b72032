"""Runs that train action heads: resumed to the bit, planned under the same names, and refused where they cannot be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.models import config
from vertebra.backbone.vocabulary import restricted_parameters
from vertebra.errors import ConfigError
from vertebra.model.description import describe
from vertebra.model.encoders.vision.tiny import tiny_vision_checkpoint
from vertebra.model.model import Model
from vertebra.tasks.acting import WAYS
from vertebra.tasks.squares import success
from vertebra.training import checkpoint
from vertebra.training.building import build_model
from vertebra.training.planning.outline import outline
from vertebra.training.run import PreparedRun, train
from vertebra.training.watching.metrics import METRICS, read, without_clock

OPTIONS: dict[str, Any] = {"flow": {"width": 16, "draws": 2, "delay": 1}, "l1": {"hidden": 16}}


def squares(head: str, **changes: Any) -> Any:
    """A small run of the task, in chunks of two."""
    tree: dict[str, Any] = {
        "model__image": {"encoder": "patches", "patch_size": 16, "width": 16},
        "data": {
            "kind": "squares", "count": 16, "head": head, "chunk": 2, "held_out": 0.5, "batching": "shuffled",
            "options": OPTIONS.get(head, {}),
        },
        "tune__stage": "vla-train", "steps": 6, "save__every": 3, "eval__every": 3, "watch__every": 1,
    }  # fmt: skip
    return config(**tree | changes)


@pytest.mark.parametrize("head", ["l1", "flow"])
def test_a_resumed_run_is_the_whole_one(head: str, tmp_path: Path):
    whole = train(squares(head, out=str(tmp_path / "whole")))
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    for path in (*(tmp_path / "half" / "checkpoints").glob("*6"), tmp_path / "half" / "model"):
        shutil.rmtree(path)
    half = train(squares(head, out=str(tmp_path / "half")), resume=True)
    assert (whole.step, half.step) == (6, 6)
    weights = [load_file(done.model / "model.safetensors") for done in (whole, half)]  # type: ignore[operator]
    assert any(name.startswith("heads.action.") for name in weights[0])
    for name, tensor in weights[0].items():
        assert torch.equal(weights[1][name], tensor), name
    rows = [[without_clock(row) for row in read(tmp_path / name / METRICS)] for name in ("whole", "half")]
    assert rows[0] == rows[1]
    assert {"loss", "success"} <= rows[0][-1]["eval"].keys()


@pytest.mark.parametrize("head", WAYS)
def test_what_a_run_leaves_acts(head: str, tmp_path: Path):
    done = train(squares(head, steps=2, out=str(tmp_path / "run"), watch__report=True))
    assert done.model is not None
    model = Model.load(done.model, inference_mode=True)
    facts = describe(done.model)
    assert [one.kind for one in facts.heads] == ([head] if head in ("l1", "flow") else [])
    assert model.record["policy"]["head"] == head
    prepared = PreparedRun.of(squares(head))
    assert 0 <= success(model, prepared.data.held_out) <= 1  # type: ignore[arg-type]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "– missed" in page or "– reached" in page


@pytest.mark.parametrize("head", WAYS)
def test_a_plan_has_the_same_tensors(head: str):
    run = squares(head)
    planned = {name: (tuple(p.shape), p.requires_grad) for name, p in outline(run).named_parameters()}
    prepared = PreparedRun.of(run)
    grown = {"backbone.llm.model.embed_tokens.weight", "backbone.llm.lm_head.weight"}
    made = {name: (tuple(p.shape), p.requires_grad) for name, p in prepared.model.named_parameters()}
    assert planned.keys() == made.keys()
    assert [name for name in made if planned[name] != made[name] and name not in grown] == []
    assert not restricted_parameters(prepared.model.backbone)


def test_a_start_with_another_head_is_refused(tmp_path: Path):
    torch.manual_seed(0)
    folder = build_model(squares("l1")).save(tmp_path / "l1")  # type: ignore[operator]
    same = build_model(squares("l1", model__start=str(folder), model__image=None))
    assert same.heads["action"].settings() == build_model(squares("l1")).heads["action"].settings()  # type: ignore[index, operator, union-attr]
    for head, text in (("flow", "`action` has 4 slots there, and 1 here"), ("parallel", "by tokens here")):
        with pytest.raises(ConfigError, match=text):
            build_model(squares(head, model__start=str(folder), model__image=None))
    wider = replace(squares("l1"), data=replace(squares("l1").data, options={"hidden": 24}))
    wider = replace(wider, model=replace(wider.model, start=str(folder), image=None))
    with pytest.raises(ConfigError, match=r"residual blocks of 16 there, by .* of 24 here"):
        build_model(wider)


def test_what_cannot_train_a_head_is_refused():
    with pytest.raises(ConfigError, match="gradient checkpointing takes them away"):
        PreparedRun.of(squares("flow", optim__checkpointing=True))
    PreparedRun.of(squares("l1", optim__checkpointing=True))
    with pytest.raises(ConfigError, match="steps: of `flow` alone"):
        squares("l1", data__options={"steps": 3})


def test_kept_features_of_a_tower_stand_beside_the_numbers(tmp_path: Path):
    image = {"encoder": "vision", "name": str(tiny_vision_checkpoint("tiny-dinov2")), "pool": 2}
    found = []
    for name, cached in (("plain", False), ("cached", True)):
        run = squares("l1", model__image=image, tune__freeze=["parts.image.encoder"], cache__tower=cached, steps=3)
        train(replace(run, out=str(tmp_path / name)))
        found.append([row["loss"] for row in read(tmp_path / name / METRICS) if "loss" in row])
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert checkpoint.newest_good(tmp_path / "cached" / "checkpoints") is not None
