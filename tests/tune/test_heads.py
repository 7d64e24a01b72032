"""What trains of a model with an action head, and its adapters: they bring the head back where the base has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model.test_heads import ROWS, acting, batch_of
from vertebra.errors import CheckpointError
from vertebra.model.model import Model
from vertebra.tune.adapter import load_adapter, save_adapter
from vertebra.tune.merge import merge
from vertebra.tune.pieces import what_trains
from vertebra.tune.settings import LoraConfig, TuneConfig
from vertebra.tune.stages import choose

LORA = TuneConfig(stage="lora", lora=LoraConfig(r=3))


def fit(model: Any, steps: int = 3) -> None:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model.train()(**batch_of(model, *ROWS)).loss.backward()
        optimizer.step()
    model.eval()


def trains(model: Any) -> set[str]:
    return {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("stage", "expected"),
    [(stage, {"backbone", "parts", "heads"}) for stage in ("vla-train", "lora", "vla-last-layer-train", "last-blocks")],
)
def test_stages_train_it_as_a_head(stage: Any, expected: set[str]):
    model = acting()
    choose(model, TuneConfig(stage=stage))
    assert trains(model) == expected
    assert all(p.requires_grad for p in model.heads.parameters())


def test_patterns_name_it():
    model = acting()
    choose(model, TuneConfig(stage="vla-train", freeze=("backbone", "parts.action")))
    assert trains(model) == {"heads"}
    rows = {row.piece: row for row in what_trains(model)}
    assert rows["heads.action.model.fc1"].share == 1.0


@pytest.mark.parametrize("aligned", [True, False], ids=["from a folder", "from an id"])
def test_an_adapter_brings_it_back_and_merges(tmp_path: Path, aligned: bool):
    model, base = acting(), "tiny-llama2"
    if aligned:
        base = str(model.save(tmp_path / "base"))
        model = Model.load(base)
    adapter = choose(model, LORA)
    fit(model)
    folder = save_adapter(model, adapter, tmp_path / "adapter")
    again, _ = load_adapter(base, folder, trainable=True, dtype="float32")
    batch = batch_of(model, *ROWS)
    assert torch.equal(again.eval()(**batch).loss, model(**batch).loss)
    assert trains(again) == trains(model)
    for name, tensor in model.heads.state_dict().items():
        assert torch.equal(again.heads.state_dict()[name], tensor)
    assert merge(base, folder, tmp_path / "merged", dtype="float32").good
    merged = Model.load(tmp_path / "merged", inference_mode=True)
    assert float((merged(**batch).loss - model(**batch).loss).detach().abs()) < 1e-4


def test_an_adapter_of_another_head_is_refused(tmp_path: Path):
    model = Model.load(acting().save(tmp_path / "base"))
    adapter = choose(model, LORA)
    folder = save_adapter(model, adapter, tmp_path / "adapter")
    other = acting()
    torch.nn.init.normal_(other.heads["action"].model.fc1.weight)  # type: ignore[union-attr, arg-type]
    with pytest.raises(CheckpointError, match="`action` head is another one"):
        load_adapter(other.save(tmp_path / "other"), folder)
