"""Runs of prismatic's: the same model as the folder that its own conversion would write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.interop.openvla.made import made_folder, made_run, whole
from tests.interop.openvla.plain import Original
from vertebra import load
from vertebra.backbone.weights import mapped_tensors
from vertebra.errors import CheckpointError, ConfigError, UnknownNameError
from vertebra.interop import write_openvla
from vertebra.interop.openvla.prismatic import VISION, Vision, checkpoint_of

SMALL = {"model": {
    "model_id": "small", "vision_backbone_id": "small", "llm_backbone_id": "llama2-7b-pure",
    "image_resize_strategy": "letterbox", "arch_specifier": "no-align+fused-gelu-mlp",
}}  # fmt: skip


@pytest.fixture(autouse=True)
def small_towers(monkeypatch: pytest.MonkeyPatch):
    """The towers of these tests look at images of 28 pixels."""
    real = VISION["dinosiglip-vit-so-224px"]
    for name in ("dinosiglip-vit-so-224px", "small"):
        monkeypatch.setitem(VISION, name, Vision(timm=real.timm, size=28, prefixes=real.prefixes))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("runs") / "prism", seed=6)


def llm_of(run: Path) -> str:
    return str(run.parent / f"{run.name}-llm")


@torch.inference_mode()
def test_a_policy_s_run(run: Path, tmp_path: Path):
    model = load(run, llm=llm_of(run), dtype="float32")
    images = model.parts["image"].encoder.sample(1, torch.Generator().manual_seed(0))
    tensors, _, _ = whole(seed=6)
    found = load(made_folder(tmp_path / "folder", dtype=torch.float32, seed=6), dtype="float32")
    # its transform has timm's own statistics, which the conversion rounded
    for tower, other in zip(model.parts["image"].encoder.towers, found.parts["image"].encoder.towers, strict=True):
        assert tower.mean != other.mean or tower.mean == (0.5, 0.5, 0.5)
        other.mean, other.std = tower.mean, tower.std
    assert torch.equal(model.parts["image"](images), found.parts["image"](images))
    ids = torch.tensor([[1, 5, 6, 7]])
    assert torch.equal(model.backbone(input_ids=ids).logits, found.backbone(input_ids=ids).logits)
    assert list(model.record["policy"]["statistics"]) == ["bridge"]
    assert model.backbone.num_rows == len(tensors["language_model.lm_head.weight"])


def test_written_in_hugging_face_s_form(run: Path, tmp_path: Path):
    out = write_openvla(load(run, llm=llm_of(run)), tmp_path / "out")
    tensors, _, _ = whole(seed=6)
    found = mapped_tensors(out)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor.bfloat16()) for name, tensor in tensors.items())
    again = load(out, dtype="float32")
    config = json.loads((out / "config.json").read_text())
    assert config["timm_model_ids"] == list(VISION["small"].timm)
    assert again.parts["image"].encoder.preparation == load(run, llm=llm_of(run)).parts["image"].encoder.preparation
    assert Original(out).rows == again.backbone.num_rows


def test_a_vision_language_model_s_run(tmp_path: Path):
    where = made_run(tmp_path / "vlm", model=SMALL["model"])
    (where / "dataset_statistics.json").unlink()
    model = load(where, llm=llm_of(where))
    assert "policy" not in model.record
    preparation = model.parts["image"].encoder.preparation
    assert (preparation.fit, preparation.ground, preparation.rounding) == ("letterbox", (127, 127, 127), "even")


def test_which_checkpoint(tmp_path: Path):
    where = made_run(tmp_path / "steps", steps=("step-000900-a.pt", "step-010000-b.pt"))
    assert checkpoint_of(where).name == "step-010000-b.pt"
    named = where / "checkpoints" / "step-000900-a.pt"
    assert checkpoint_of(named) == named
    assert load(named, llm=llm_of(where)).record["openvla"]["kinds"] == ["dinov2", "siglip"]


def test_what_cannot_be(run: Path, tmp_path: Path):
    far = made_run(tmp_path / "far")  # of a language model that no cache holds
    (far / "config.json").write_text(json.dumps({"model": {**SMALL["model"], "llm_backbone_id": "llama2-13b-chat"}}))
    with pytest.raises(CheckpointError, match=r"not in the run.*llm=…"):
        load(far)
    with pytest.raises(ConfigError, match="is a model of its own"):
        load(run, base=run, llm=llm_of(run))
    where = made_run(tmp_path / "unknown")
    (where / "config.json").write_text(json.dumps({"vla": {"base_vlm": "prism-dinosiglip-224+7b"}}))
    with pytest.raises(UnknownNameError, match=r"prism-dinosiglip-224px\+7b"):
        load(where, llm=llm_of(where))
    (where / "config.json").write_text(json.dumps({"model": {"vision_backbone_id": "small"}}))
    with pytest.raises(CheckpointError, match="lacks llm_backbone_id"):
        load(where, llm=llm_of(where))
    (where / "config.json").write_text(json.dumps(SMALL))
    file = where / "checkpoints" / "latest-checkpoint.pt"
    torch.save({"model": {"projector": {}}}, file)
    with pytest.raises(CheckpointError, match="no state of vision_backbone, llm_backbone"):
        load(where, llm=llm_of(where))
    torch.save({"model": Path("code")}, file)
    with pytest.raises(CheckpointError, match="unpickling can run code"):
        load(where, llm=llm_of(where))
    file.unlink()
    with pytest.raises(CheckpointError, match=r"holds no checkpoint"):
        load(where, llm=llm_of(where))
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load(file, llm=llm_of(where))
