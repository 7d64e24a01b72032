"""An adapter as a folder: it comes back exactly, PEFT alone reads it, and wrong bases and damage are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file

from tests.tune.models import backbone, batch_for, expected_logits, trained, with_parts
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.errors import CheckpointError, ConfigError
from vertebra.tune.adapter import load_adapter, save_adapter
from vertebra.tune.lora import LoraConfig, peft_quiet
from vertebra.tune.merge import probe_logits
from vertebra.tune.stages import TuneConfig, choose


def test_an_adapter_comes_back_exactly(adapter_folder: Path):
    model, _ = load_adapter(backbone(), adapter_folder)
    model.eval()
    for found, expected in zip(probe_logits(model), expected_logits(adapter_folder), strict=True):
        assert torch.equal(found, expected)
    assert model.growths[-1].tokens == ("<ACT>",)
    assert not trained(model)
    record = json.loads((adapter_folder / "vertebra.json").read_text())
    assert record["statistics"] == {"x": 1}
    assert record["backbone"]["prompt_builder"] == model.builder


def test_peft_alone_loads_the_folder(adapter_folder: Path):
    model = backbone()
    grow_vocabulary(model, ["<ACT>"])
    with peft_quiet():
        wrapped = peft.PeftModel.from_pretrained(model.llm, adapter_folder, subfolder="lora_adapter")
    wrapped.eval()
    for found, expected in zip(probe_logits(model), expected_logits(adapter_folder), strict=True):
        assert torch.equal(found, expected)


def test_no_whole_matrix_is_saved(adapter_folder: Path):
    saved = load_file(adapter_folder / "lora_adapter" / "adapter_model.safetensors")
    assert all(t.numel() < 5000 for t in saved.values())
    assert any("trainable_tokens_delta" in name for name in saved)


def test_parts_trained_beside_an_adapter_come_back(tmp_path: Path):
    model = with_parts()
    adapter = choose(
        model, TuneConfig(stage="lora", lora=LoraConfig(r=2, projector=True), train=("parts.image.encoder",))
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 if "lora_B" in name else 0.1)
    save_adapter(model, adapter, tmp_path / "a")
    base = with_parts()
    load_adapter(base, tmp_path / "a", trainable=True)
    assert trained(base) == trained(model)
    batch = batch_for(model)
    assert torch.equal(base.eval()(**batch).loss, model.eval()(**batch).loss)


def test_wrong_bases(adapter_folder: Path):
    with pytest.raises(CheckpointError, match=r"trained on `tiny-llama2`.*another base: `tiny-mistral`"):
        load_adapter(backbone("tiny-mistral"), adapter_folder)
    grown = backbone()
    grow_vocabulary(grown, ["<OTHER>"])
    with pytest.raises(CheckpointError, match="without growing it"):
        load_adapter(grown, adapter_folder)
    twice = backbone()
    load_adapter(twice, adapter_folder)
    with pytest.raises(CheckpointError, match="has an adapter already"):
        load_adapter(twice, adapter_folder)


def test_damaged_adapters(adapter_folder: Path, tmp_path: Path):

    with pytest.raises(CheckpointError, match="is no folder"):
        load_adapter(backbone(), tmp_path / "none")
    broken = tmp_path / "broken"
    shutil.copytree(adapter_folder, broken)
    file = broken / "lora_adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_adapter(backbone(), broken)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors missing"):
        load_adapter(backbone(), broken)


def test_options_are_for_bases_that_are_loaded_here(adapter_folder: Path):
    with pytest.raises(ConfigError, match="dtype: the base is loaded already"):
        load_adapter(backbone(), adapter_folder, dtype="float32")
