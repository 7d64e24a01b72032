"""Weights: threads that load at once, old `.bin` files, precision that a cast must not take."""

from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import write_tiny
from vertebra.backbone.weights import left_on_meta, parameters_on_meta


def test_other_threads_build_real_parameters_meanwhile():
    inside, built = threading.Event(), threading.Event()
    found: list[bool] = []

    def build_elsewhere() -> None:
        inside.wait()
        found.append(nn.Linear(2, 2).weight.is_meta)
        built.set()

    thread = threading.Thread(target=build_elsewhere)
    thread.start()
    with parameters_on_meta():
        inside.set()
        assert built.wait(10)
        assert nn.Linear(2, 2).weight.is_meta
    thread.join()
    assert found == [False]


def test_backbones_that_load_at_once_in_both_modes(ids):
    """The library patches itself while it loads; without a lock, ties were left out."""

    def load(inference: bool) -> torch.Tensor:
        backbone = load_backbone("tiny-qwen2.5", dtype="float32", inference_mode=inference, weights=inference).eval()
        assert not left_on_meta(backbone)
        assert backbone.llm.get_output_embeddings().weight is backbone.llm.get_input_embeddings().weight
        with torch.no_grad():
            return backbone(ids(backbone)).logits

    expected = load(False)
    with ThreadPoolExecutor(4) as pool:
        for logits in pool.map(load, [True, False] * 4):
            assert torch.equal(logits, expected)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_plain_bin_files_of_both_forms_are_read(tmp_path, shared, ids, zipped):
    folder = write_tiny("tiny-llama2", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    (folder / "model.safetensors").unlink()
    backbone = load_backbone(folder, inference_mode=True, weights=True, dtype="float32")
    row = ids(backbone)
    with torch.no_grad():
        expected = shared("tiny-llama2", True)(row).logits[..., : backbone.num_rows]  # that one has a pad token more
        assert torch.equal(backbone(row).logits, expected)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gemma3", "tiny-pythia"])
@pytest.mark.parametrize(
    "cast", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: nn.Sequential(m).bfloat16()[0]]
)
def test_a_cast_leaves_rotary_tables_and_scales_exact(name, cast):
    """In bf16 a rotary table is off by 0.4 %: a radian of phase at position 2048."""
    exact = load_backbone(name, dtype="float32")
    half = cast(load_backbone(name, dtype="float32"))
    assert half.dtype in (torch.bfloat16, torch.float16)
    for (label, before), (_, after) in zip(exact.named_buffers(), half.named_buffers(), strict=True):
        assert torch.equal(before, after), label
    loaded = load_backbone(name, dtype=half.dtype)
    row = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        # rows of added tokens were averaged in another type
        assert torch.equal(half(row).logits[..., :700], loaded(row).logits[..., :700])


@pytest.mark.parametrize("mode", [{}, {"inference_mode": True, "weights": True}], ids=["train", "infer"])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_backbone_can_be_copied_and_pickled(mode, again, ids):
    backbone = load_backbone("tiny-qwen2.5", dtype="float32", **mode)
    copied = again(backbone)
    row = ids(backbone)
    assert torch.equal(copied(row).logits, backbone(row).logits)
    copied.llm.requires_grad_(False)
    out = copied.embed_input_ids(row)
    assert out.requires_grad == (not mode), "the hook for frozen models must be there in the copy"
