"""Only the rows of added tokens train: through saving, loading, another growth, and a resumed run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tune.models import backbone, some_ids, trained, with_all_kinds
from vertebra.backbone.matrices import matrices
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.vocabulary import grow_vocabulary, new_row_ids, restricted_parameters, undo_growth
from vertebra.errors import ConfigError
from vertebra.model.model import Model
from vertebra.training import checkpoint
from vertebra.training.config import OptimConfig, RunConfig
from vertebra.training.learner import Learner
from vertebra.training.optim import groups
from vertebra.training.recipes import read_recipe
from vertebra.training.run import train
from vertebra.training.scale.sharding import shard
from vertebra.tune.gradients import check_gradients
from vertebra.tune.pieces import what_trains
from vertebra.tune.stages import TuneConfig, choose

RECIPE = Path(__file__).parents[2] / "recipes" / "chat-full.yaml"


def moved(model: Any) -> list[set[int]]:
    """Which rows of each table one step with weight decay moves."""
    before = [m.parameter.detach().clone() for m in matrices(model.llm)]
    optimizer = torch.optim.AdamW(groups(model, OptimConfig(weight_decay=0.1)), lr=0.1)
    ids = some_ids(model, "Pick up <ACT> the red block")
    model.train()(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    pairs = zip(matrices(model.llm), before, strict=True)
    return [
        set((m.parameter.detach() != old).reshape(len(old), -1).any(1).nonzero()[:, 0].tolist()) for m, old in pairs
    ]


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gpt2", "tiny-phi2", "tiny-opt-narrow"])
def test_it_survives_saving_and_loading(name: str, tmp_path: Path):
    model = backbone(name)
    grow_vocabulary(model, ["<ACT>"], only_new_trainable=True)
    again = load_backbone(model.save(tmp_path / "saved"), dtype="float32")
    rows = set(new_row_ids(again))
    assert len(rows) == 1
    assert all(found == rows for found in moved(again))


def test_a_multimodal_folder_remembers_it(tmp_path: Path):
    model = with_all_kinds()
    grow_vocabulary(model.backbone, ["<ACT>"], only_new_trainable=True)
    again = Model.load(model.save(tmp_path / "saved"), dtype="float32")
    assert all(found == set(new_row_ids(again.backbone)) for found in moved(again.backbone))


def test_another_growth_keeps_it_and_its_undoing_lifts_it():
    model = backbone()
    grow_vocabulary(model, ["<ACT>"], only_new_trainable=True)
    grow_vocabulary(model, ["<B>"])  # the head is a new module now
    assert [len(found) <= 2 and found <= set(new_row_ids(model)) for found in moved(model)] == [True, True]
    undo_growth(model)
    assert restricted_parameters(model)
    undo_growth(model)
    assert not restricted_parameters(model)


def test_as_a_choice_of_what_trains():
    model = backbone()
    grow_vocabulary(model, ["<ACT>"])
    choose(model, TuneConfig(stage="none", only_new_rows=True))
    assert trained(model) == {"llm.model.embed_tokens.weight", "llm.lm_head.weight"}
    rows = {row.piece: row for row in what_trains(model)}
    assert rows["llm.lm_head (new rows only)"].trained == model.embedding_width
    ids = some_ids(model)  # without the new token: its embedding has nothing to learn yet
    model(input_ids=ids, labels=ids).loss.backward()
    found = check_gradients(model)
    found.require_good()
    assert found.allowed_zero == ("llm.model.embed_tokens.weight",)


@pytest.mark.parametrize(
    ("tokens", "stage", "message"), [((), "none", "no token was added"), (("<ACT>",), "lora", "by itself")]
)
def test_choices_that_make_no_sense(tokens: tuple[str, ...], stage: Any, message: str):
    model = backbone()
    if tokens:
        grow_vocabulary(model, tokens)
    with pytest.raises(ConfigError, match=message):
        choose(model, TuneConfig(stage=stage, only_new_rows=True))


def run(folder: Path) -> RunConfig:
    settings = ["model.tokens=[<ACT>]", "tune.stage=none", "tune.only_new_rows=true", "optim.weight_decay=0.1"]
    small = ["steps=4", "save.every=2", "save.keep=9", "eval.every=0", "data.limit=12", "watch.samples=[]"]
    return read_recipe(RECIPE, [*settings, *small, f"out={folder}"])


def test_a_resumed_run_trains_no_other_row_either(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "vertebra")
    whole = train(run(tmp_path / "whole")).model
    messages = [record.message for record in caplog.records]
    table = next(i for i, message in enumerate(messages) if "(new rows only)" in message)
    check = next(i for i, message in enumerate(messages) if message.startswith("step 1: all 1 trainable tensors"))
    assert table < check, "what trains is told before the first step, what learns after it"
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / checkpoint.name_of(4))
    resumed = train(run(tmp_path / "cut"), resume=True).model
    first, second = (load_backbone(str(made), dtype="float32") for made in (whole, resumed))
    start = backbone("tiny-qwen2.5")
    grow_vocabulary(start, ["<ACT>"])
    new = new_row_ids(start)
    for (name, a), b, old in zip(first.named_parameters(), second.parameters(), start.parameters(), strict=True):
        assert torch.equal(a, b), name
        if a.shape == old.shape and name != "llm.model.embed_tokens.weight":
            assert torch.equal(a, old), name
    table, old = (m.llm.get_input_embeddings().weight.detach() for m in (first, start))
    assert (table != old).any(1).nonzero()[:, 0].tolist() == new


def test_shards_refuse_it_wherever_it_comes_from(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"`tune\.only_new_rows` cannot tell which they are"):
        read_recipe(RECIPE, ["tune.only_new_rows=true", "parallel.kind=fsdp"])
    model = backbone()
    grow_vocabulary(model, ["<ACT>"], only_new_trainable=True)
    with pytest.raises(ConfigError, match=r"use parallel\.kind=ddp"):
        shard(Learner(Model(model)), run(tmp_path), torch.device("cpu"), 2)
