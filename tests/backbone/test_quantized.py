"""Packed matrices: one form, whichever way the weights came. Runs where bitsandbytes is installed (extra `quantize`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vertebra as vt
from tests.interop.openvla.made import made_folder
from tests.training.models import config
from vertebra.errors import BackboneError
from vertebra.model import PatchEncoder, new_part
from vertebra.training.building import build_model

bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes (extra `quantize`) packs matrices")

IDS = torch.arange(5, 25)[None]
WAYS = ["int8", "nf4"]


def logits(backbone) -> torch.Tensor:
    with torch.no_grad():
        return backbone(input_ids=IDS).logits.float()


@pytest.fixture(params=WAYS)
def way(request) -> str:
    return request.param


@pytest.fixture
def plain(way):
    """A plain checkpoint as the library packs it while it loads."""
    return vt.load_backbone("tiny-llama2", quantization=way, dtype="float32").eval()


def test_what_is_packed_afterwards_is_the_same(way, plain):
    mapped = vt.load_backbone("tiny-llama2", inference_mode=True, weights=True, quantization=way, dtype="float32")
    assert torch.equal(logits(mapped), logits(plain))
    assert mapped.quantization == way
    assert mapped.inference_mode
    exact = vt.load_backbone("tiny-llama2", inference_mode=True, weights=True, dtype="float32")
    assert not torch.equal(logits(exact), logits(plain))
    text = vt.generate(vt.load("tiny-llama2", quantization=way, dtype="float32"), "hello", max_new_tokens=5).text
    assert text == vt.generate(mapped, "hello", max_new_tokens=5).text


def test_a_whole_model(way, plain, tmp_path):
    backbone = vt.load_backbone("tiny-llama2", dtype="float32")
    model = vt.Model(backbone, {"image": new_part(backbone, PatchEncoder(32, image_size=32, patch_size=16))})
    model.save(tmp_path / "model")
    to_run = vt.load(tmp_path / "model", quantization=way)
    to_train = vt.Model.load(tmp_path / "model", quantization=way)
    for found in (to_run, to_train):
        assert torch.equal(logits(found.backbone.eval()), logits(plain))
        assert found.parts["image"].encoder.state_dict().keys() == model.parts["image"].encoder.state_dict().keys()
    assert to_run.training is False
    with pytest.raises(BackboneError, match="has no weights yet"):
        vt.load_backbone("tiny-llama2", inference_mode=True).quantize(way)


def test_an_openvla_folder(way, tmp_path):
    folder = made_folder(tmp_path / "openvla")
    packed, exact = vt.load(folder, quantization=way, dtype="float32"), vt.load(folder, dtype="float32")
    kinds = {type(module) for module in packed.backbone.llm.modules()}
    assert kinds & {bitsandbytes.nn.Linear8bitLt, bitsandbytes.nn.Linear4bit}
    difference = (logits(packed.backbone) - logits(exact.backbone)).abs().max()
    assert 0 < difference < logits(exact.backbone).abs().max()
    observation = np.zeros((28, 28, 3), np.uint8)
    assert np.isfinite(vt.policy(folder, quantization=way, golden="skip").act(observation, "go on", "bridge")).all()


def test_an_adapter_on_a_packed_model_folder(way, plain, tmp_path):
    vt.Model(vt.load_backbone("tiny-llama2", dtype="float32")).save(tmp_path / "base")
    run = config(
        model={"backbone": "tiny-llama2", "start": str(tmp_path / "base"), "quantization": way},
        tune={"stage": "lora"},
    )
    model = build_model(run)
    assert model.backbone.quantization == way
    assert torch.equal(logits(model.backbone.eval()), logits(plain))
