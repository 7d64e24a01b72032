"""Adapters that are not whole: each tensor that is missing, left over or wrong is named, and the base is given back."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tune.models import backbone, expected_logits, row_of_all_kinds, trained, with_all_kinds
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.errors import CheckpointError
from vertebra.model.model import Model
from vertebra.tune.adapter import load_adapter, save_adapter
from vertebra.tune.lora import LoraConfig
from vertebra.tune.merge import merge, probe_logits
from vertebra.tune.stages import TuneConfig, choose

Tensors = dict[str, torch.Tensor]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that an adapter can have: of three roots, of what trained in full, and of parts."""
    torch.manual_seed(0)
    model = with_all_kinds()
    grow_vocabulary(model.backbone, ["<ACT>"])
    lora = LoraConfig(r=2, projector=True, towers=True)
    adapter = choose(model, TuneConfig(stage="lora", lora=lora, train=("backbone.llm.model.norm",)))
    return save_adapter(model, adapter, tmp_path_factory.mktemp("strict") / "adapter")


def files_of(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*.safetensors"))


def rewritten(folder: Path, file: Path, to: Path, change: Callable[[Tensors], Any]) -> Path:
    """A copy of a folder with one file changed; the others are links."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to, copy_function=lambda a, b: Path(b).symlink_to(a))
    tensors = load_file(folder / file)
    change(tensors)
    (to / file).unlink()
    save_file(tensors, to / file)
    return to


def message_of(base: Any, folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_adapter(base, folder)
    return str(caught.value)


def state(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, tensor.clone()) for name, tensor in model.state_dict().items())


def test_the_folder_has_every_kind_of_file(everywhere: Path):
    names = [str(path) for path in files_of(everywhere)]
    assert "lora_adapter/" + WEIGHTS in names
    assert sum(name.startswith("lora_adapter.") for name in names) >= 2
    assert "trained.safetensors" in names
    assert "parts.safetensors" in names


def test_every_missing_tensor_is_named(everywhere: Path, tmp_path: Path):
    """Half of each file at a time, so that each tensor is missing once: those are named, and no other."""
    base = backbone()
    for file in files_of(everywhere):
        keys = sorted(load_file(everywhere / file))
        for gone in (set(keys[::2]), set(keys[1::2])):
            if not gone:  # a file of one tensor
                continue
            folder = rewritten(
                everywhere, file, tmp_path / "a", lambda tensors, gone=gone: [tensors.pop(key) for key in gone]
            )
            message = re.findall(r"[\w.]+", message_of(base, folder))
            assert {key for key in keys if key in message or f"{key}." in message} == gone, file


def wrong_ways(key: str) -> dict[str, Callable[[Tensors], Any]]:
    return {
        "extra": lambda tensors: tensors.update({key + ".more": torch.zeros(2)}),
        "shape": lambda tensors: tensors.update({key: torch.zeros(3, 1, 2)}),
        "type": lambda tensors: tensors.update({key: torch.zeros(tensors[key].shape, dtype=torch.int32)}),
        "nan": lambda tensors: tensors.update({key: torch.full_like(tensors[key], torch.nan)}),
        "another name": lambda tensors: tensors.update({"x." + key: tensors.pop(key)}),
    }


@pytest.mark.parametrize("way", wrong_ways(""))
def test_every_wrong_tensor_is_named(everywhere: Path, tmp_path: Path, way: str):
    base = backbone()
    for file in files_of(everywhere):
        tensors = load_file(everywhere / file)
        key = next(name for name in tensors if tensors[name].is_floating_point())
        folder = rewritten(everywhere, file, tmp_path / "a", wrong_ways(key)[way])
        message = message_of(base, folder)
        assert key in message, f"{file}: {message}"
        assert {"extra": f"{key}.more", "another name": f"x.{key}"}.get(way, key) in message


def test_all_faults_are_reported_at_once(adapter_folder: Path, tmp_path: Path):
    def empty(tensors: Tensors) -> None:
        tensors.clear()
        tensors["stray"] = torch.zeros(1)

    keys = load_file(adapter_folder / "lora_adapter" / WEIGHTS)
    folder = rewritten(adapter_folder, Path("lora_adapter") / WEIGHTS, tmp_path / "a", empty)
    message = message_of(backbone(), folder)
    assert all(key in message for key in keys)
    assert "stray" in message


def test_the_base_is_given_back_as_it_was(adapter_folder: Path, tmp_path: Path):
    base = backbone().eval()
    before, trains, logits = dict(state(base)), trained(base), probe_logits(base)
    folder = rewritten(
        adapter_folder, Path("lora_adapter") / WEIGHTS, tmp_path / "a", lambda tensors: tensors.pop(next(iter(tensors)))
    )
    message_of(base, folder)
    after = dict(state(base))
    assert list(after) == list(before)
    assert not any("<ACT>" in growth.tokens for growth in base.growths)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert trained(base) == trains
    assert all(torch.equal(a, b) for a, b in zip(probe_logits(base), logits, strict=True))
    good, _ = load_adapter(base, adapter_folder)
    for found, expected in zip(probe_logits(good.eval()), expected_logits(adapter_folder), strict=True):
        assert torch.equal(found, expected)


def test_nothing_is_merged_of_an_adapter_that_is_not_whole(adapter_folder: Path, tmp_path: Path):
    key = next(name for name in load_file(adapter_folder / "lora_adapter" / WEIGHTS) if "lora_A" in name)
    folder = rewritten(adapter_folder, Path("lora_adapter") / WEIGHTS, tmp_path / "a", lambda tensors: tensors.pop(key))
    with pytest.raises(CheckpointError, match=f"1 missing: {key}"):
        merge("tiny-llama2", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_whole_files_and_folders(everywhere: Path, tmp_path: Path):
    for number, file in enumerate(files_of(everywhere)):
        folder = Path(shutil.copytree(everywhere, tmp_path / str(number)))
        (folder / file).unlink()
        message = message_of(backbone(), folder)
        assert str(file) in message or all(key in message for key in load_file(everywhere / file))
    folder = Path(shutil.copytree(everywhere, tmp_path / "more"))
    shutil.copytree(folder / "lora_adapter", folder / "lora_adapter.stray")
    assert "holds lora_adapter.stray, which its vertebra.json does not list" in message_of(backbone(), folder)


def test_what_was_trained_in_full_survives_a_frozen_round(everywhere: Path, tmp_path: Path):
    model, adapter = load_adapter(backbone(), everywhere)
    assert not trained(model)
    again = save_adapter(model, adapter, tmp_path / "again")
    assert files_of(again) == files_of(everywhere)
    batch = row_of_all_kinds(model)
    twin, _ = load_adapter(backbone(), again)
    assert isinstance(twin, Model)
    assert torch.equal(twin.eval()(**batch).loss, model.eval()(**batch).loss)
