"""Merging: what PEFT would do, in place, told, and refused where it would be wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.tune.models import backbone, expected_logits, train_a_little
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.errors import CheckpointError, ConfigError
from vertebra.tune.lora import LoraConfig
from vertebra.tune.merge import merge, merge_in_place, probe_logits
from vertebra.tune.stages import TuneConfig, choose


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gpt2", "tiny-phi3"])
def test_merging_in_place_equals_peft(name: str):
    ours, theirs = backbone(name), backbone(name)
    for model in (ours, theirs):
        grow_vocabulary(model, ["<ACT>"])
        adapter = choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=4)), seed=3)
        train_a_little(model)
    merge_in_place(ours)
    theirs.llm = adapter.language.merge_and_unload()
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def test_merging_dora_falls_back_to_peft():
    model = backbone()
    choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2, dora=True)))
    train_a_little(model)
    before = probe_logits(model)
    merge_in_place(model)
    assert max(float((a - b).abs().max()) for a, b in zip(probe_logits(model), before, strict=True)) < 1e-3


def test_merge_writes_a_plain_folder_and_tells_the_difference(adapter_folder: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    report = merge("tiny-llama2", adapter_folder, tmp_path / "out", dtype="float32")
    assert report.good
    # On one probe the unmerged fp32 model is itself 5e-4 from fp64 (logits up to 14), the merged one 1e-4.
    assert report.exact < 1e-4 * report.largest_logit
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert type(plain).__name__ == "LlamaForCausalLM"
    again = backbone(str(tmp_path / "out")).eval()
    for found, expected in zip(probe_logits(again), expected_logits(adapter_folder), strict=True):
        assert torch.allclose(found, expected, atol=1e-4 * report.largest_logit)
    assert json.loads((tmp_path / "out" / "vertebra.json").read_text())["statistics"] == {"x": 1}
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        merge("tiny-llama2", adapter_folder, tmp_path / "out")


@pytest.mark.parametrize("out", ["run/adapter", "run", ".", "base", "run/../run", "link"])
def test_no_merge_replaces_what_it_reads(adapter_folder: Path, tmp_path: Path, out: str):
    shutil.copytree(adapter_folder, tmp_path / "run" / "adapter")
    shutil.copytree(tiny_checkpoint("tiny-llama2"), tmp_path / "base")
    (tmp_path / "link").symlink_to(tmp_path / "run", target_is_directory=True)

    def seen() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before = seen()
    with pytest.raises(CheckpointError, match="would be lost by being replaced; name another folder"):
        merge(tmp_path / "base", tmp_path / "run" / "adapter", tmp_path / out, overwrite=True)
    assert seen() == before


def test_merging_twice_is_refused(adapter_folder: Path, tmp_path: Path):
    merge("tiny-llama2", adapter_folder, tmp_path / "out", dtype="float32")
    with pytest.raises(CheckpointError, match=r"merged into .* already"):
        merge(tmp_path / "out", adapter_folder, tmp_path / "twice")
    (tmp_path / "out" / "vertebra.json").unlink()  # a plain folder: its weights tell
    with pytest.raises(CheckpointError, match="this is another base"):
        merge(tmp_path / "out", adapter_folder, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_a_merge_that_differs_too_much_writes_nothing(adapter_folder: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="NOT good"):
        merge("tiny-llama2", adapter_folder, tmp_path / "out", dtype="bfloat16", bound=1e-6)
    assert not (tmp_path / "out").exists()


def test_ranks_do_not_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process's work"):
        merge("tiny-llama2", tmp_path / "a", tmp_path / "out")
