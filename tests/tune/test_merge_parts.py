"""Adapters of models that see images: they come back with everything that the base does not hold, and merge into a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tune.models import row_of_all_kinds, trained, with_all_kinds
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.decode.call import generate
from vertebra.errors import CheckpointError
from vertebra.model.fresh import new_queries
from vertebra.model.model import Model
from vertebra.tune.adapter import load_adapter, save_adapter
from vertebra.tune.lora import LoraConfig, has_adapter
from vertebra.tune.merge import merge
from vertebra.tune.stages import TuneConfig, choose

EVERYWHERE = TuneConfig(stage="lora", lora=LoraConfig(r=3, projector=True, towers=True))


def fit(model: Any, steps: int = 3) -> None:
    """Real steps, so that adapters, queries and new rows are no longer where they began."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    batch = row_of_all_kinds(model)
    for _ in range(steps):
        optimizer.zero_grad()
        model.train()(**batch).loss.backward()
        optimizer.step()
    model.eval()


def made(folder: Path, *, name: str = "tiny-llama2", aligned: bool = True, tune: TuneConfig = EVERYWHERE) -> Any:
    """A base (a model folder, or an id with fresh parts), an adapter trained on it, and the model that it was."""
    model = with_all_kinds(name)
    base: str | Path = name
    if aligned:
        choose(model, TuneConfig(stage="align"))
        fit(model)
        base = model.save(folder / "base")
        model = Model.load(base)
    grow_vocabulary(model.backbone, ["<ACT>"])
    model.record["statistics"] = {"q99": [1.0, 2.0]}
    adapter = choose(model, tune)
    fit(model)
    return base, save_adapter(model, adapter, folder / "adapter"), model


def reply(model: Any) -> Any:
    """Greedy tokens after a row with an image, a box and queries."""
    return generate(model, row_of_all_kinds(model), max_new_tokens=6).tokens


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gpt2"])
@pytest.mark.parametrize("aligned", [True, False], ids=["from a folder", "from an id"])
def test_an_adapter_comes_back_and_merges(tmp_path: Path, name: str, aligned: bool):
    base, folder, model = made(tmp_path, name=name, aligned=aligned)
    again, adapter = load_adapter(base, folder, trainable=True, dtype="float32")
    assert trained(again) == trained(model)
    assert again.record["statistics"] == adapter.about["record"]["statistics"] == {"q99": [1.0, 2.0]}
    batch = row_of_all_kinds(model)
    expected = model(**batch, logits_to_keep=0).logits.detach()
    assert torch.equal(again.eval()(**batch, logits_to_keep=0).logits, expected)
    report = merge(base, folder, tmp_path / "merged", dtype="float32")
    assert report.good
    merged = Model.load(tmp_path / "merged", inference_mode=True)
    assert not has_adapter(merged)
    assert merged.record["statistics"] == {"q99": [1.0, 2.0]}
    found = merged(**batch, logits_to_keep=0).logits
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
    assert reply(merged) == reply(model)


def test_only_what_the_base_lacks_is_written(tmp_path: Path):
    _, folder, _ = made(tmp_path)
    assert not (folder / "parts.safetensors").exists()
    _, folder, _ = made(tmp_path / "fresh", aligned=False)
    held = load_file(folder / "parts.safetensors")
    assert {name.split(".")[1] for name in held} == {"image", "box", "action"}
    assert not any("lora" in name or "base_layer" in name for name in held)


def test_queries_that_join_an_aligned_base_are_brought(tmp_path: Path):
    model = with_all_kinds()
    del model.parts["action"]
    base = model.save(tmp_path / "base")
    model = Model.load(base)
    model = Model(model.backbone, {**model.parts, "action": new_queries(model.backbone, 2)})
    adapter = choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2)))
    fit(model)
    folder = save_adapter(model, adapter, tmp_path / "adapter")
    assert {name.split(".")[1] for name in load_file(folder / "parts.safetensors")} == {"action"}
    again, _ = load_adapter(base, folder)
    batch = row_of_all_kinds(model)
    assert torch.equal(again.eval()(**batch).loss, model(**batch).loss)


def test_merging_into_half_precision_keeps_its_type(tmp_path: Path):
    base, folder, _ = made(tmp_path)
    report = merge(base, folder, tmp_path / "merged", dtype="bfloat16")
    assert report.good
    assert 0 < report.exact < report.cast <= report.bound
    merged = Model.load(tmp_path / "merged", inference_mode=True)
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}


def test_merging_loads_the_base_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    base, folder, _ = made(tmp_path)
    loads: list[Any] = []
    for module in ("vertebra.tune.adapter", "vertebra.model.folder"):

        def counted(*given: Any, _real: Any = sys.modules[module].load_backbone, **options: Any) -> Any:
            loads.append(given)
            return _real(*given, **options)

        monkeypatch.setattr(f"{module}.load_backbone", counted)
    merge(base, folder, tmp_path / "merged", dtype="float32")
    assert len(loads) == 1


def test_bases_that_are_not_the_adapters(tmp_path: Path):
    base, folder, _ = made(tmp_path)
    with pytest.raises(CheckpointError, match=r"whose `image` and `box` and `action` part is another one; .* no parts"):
        merge("tiny-llama2", folder, tmp_path / "merged")
    other = Model.load(base)
    with torch.no_grad():
        other.parts["image"].projector.fc1.weight.mul_(1.5)
    with pytest.raises(CheckpointError, match="whose `image` part is another one"):
        load_adapter(other, folder)
    merge(base, folder, tmp_path / "merged", dtype="float32")
    with pytest.raises(CheckpointError, match=r"merged into .* already"):
        merge(tmp_path / "merged", folder, tmp_path / "twice")
    record = json.loads((tmp_path / "merged" / "vertebra.json").read_text())
    del record["merged"]
    (tmp_path / "merged" / "vertebra.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="this is another base"):
        merge(tmp_path / "merged", folder, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()
