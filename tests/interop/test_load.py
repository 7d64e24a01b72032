"""`load`: every kind of name gives a `Model`, and the same logits as the door of that kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.tune.models import backbone, train_a_little, with_parts
from vertebra import load
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.source import RUN
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.errors import CheckpointError, ConfigError, UnknownNameError
from vertebra.model.model import Model, model_of
from vertebra.sequence.batch import Batch
from vertebra.sequence.tokens import TokenSequence
from vertebra.tune.adapter import load_adapter, save_adapter
from vertebra.tune.lora import LoraConfig
from vertebra.tune.stages import TuneConfig, choose

ROW = TokenSequence.of([5, 6, 7, 8, 9])


@torch.inference_mode()
def logits_of(model: Model, batch: Batch | None = None) -> torch.Tensor:
    return model(**(model.collate([ROW]) if batch is None else batch), return_loss=False).logits


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = backbone("tiny-llama2")
    grow_vocabulary(model, ["<ACT>"])
    made = choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2)))
    train_a_little(model)
    return save_adapter(model, made, tmp_path_factory.mktemp("adapters") / "ours")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_parts().save(tmp_path_factory.mktemp("models") / "vla")


@pytest.fixture(scope="module")
def plain() -> torch.Tensor:
    return logits_of(model_of(backbone("tiny-llama2")).eval())


def test_an_id_and_a_folder_of_a_backbone(plain: torch.Tensor):
    for name in ("tiny-llama2", tiny_checkpoint("tiny-llama2"), str(tiny_checkpoint("tiny-llama2"))):
        model = load(name, dtype="float32")
        assert type(model) is Model
        assert not model.parts
        assert model.backbone.inference_mode
        assert not model.backbone.llm.training
        assert torch.equal(logits_of(model), plain)


def test_a_folder_of_a_model_with_parts(parts: Path):
    model = load(parts)
    assert list(model.parts) == ["image", "action"]
    assert not model.training
    assert torch.equal(logits_of(model), logits_of(Model.load(parts, inference_mode=True)))


def test_an_adapter_on_the_base_that_it_names_and_on_one_that_is_given(adapter: Path, plain: torch.Tensor):
    twin = model_of(load_adapter("tiny-llama2", adapter, dtype="float32")[0]).eval()
    for options in ({}, {"base": tiny_checkpoint("tiny-llama2")}):
        model = load(adapter, dtype="float32", **options)
        assert type(model) is Model
        assert not torch.equal(logits_of(model)[..., : plain.shape[-1]], plain)
        assert torch.equal(logits_of(model), logits_of(twin))
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_model_to_train(adapter: Path, parts: Path):
    assert load("tiny-llama2", inference_mode=False).backbone.llm.training
    assert load(parts, inference_mode=False).training
    model = load(adapter, inference_mode=False)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora" in name or "token_adapter" in name for name in trained)


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_the_folder_of_a_run_is_what_it_left(kind: str, adapter: Path, parts: Path, tmp_path: Path):
    left = {"model": parts, "adapter": adapter}[kind]
    run = tmp_path / "run"
    shutil.copytree(left, run / kind)
    (run / RUN).write_text("steps: 1\n")
    assert torch.equal(logits_of(load(run)), logits_of(load(left)))


def test_what_cannot_be(parts: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="`tiny-llama2` is a model of its own"):
        load("tiny-llama2", base="tiny-llama2")
    with pytest.raises(ConfigError, match="is a model of its own"):
        load(parts, base="tiny-llama2")
    with pytest.raises(UnknownNameError, match="tiny-llama2"):
        load("tiny-lama2")
    for name in ("tiny-llama2", parts):
        with pytest.raises(UnknownNameError, match=r"unknown option of `load` `dtpe`\. Did you mean `dtype`"):
            load(name, dtpe="float32")
    (tmp_path / RUN).write_text("steps: 1\n")
    with pytest.raises(CheckpointError, match="has left no model yet"):
        load(tmp_path)


def test_wrapping_a_backbone_changes_nothing_of_it():
    own = load_backbone("tiny-llama2", inference_mode=True, weights=True)
    before = dict(own.state_dict(keep_vars=True))
    model = model_of(own)
    assert model.backbone is own
    assert model_of(model) is model
    assert model.tokenizer is own.tokenizer
    assert model.context == own.llm.config.max_position_embeddings
    assert all(tensor is before[name] for name, tensor in own.state_dict(keep_vars=True).items())
