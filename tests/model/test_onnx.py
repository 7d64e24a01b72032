"""DINOv2 out of an ONNX file: exported here, read back by the wire format alone, equal to the model it was made of."""

from __future__ import annotations

import contextlib
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from vertebra.errors import CheckpointError
from vertebra.model.encoders.vision.dinov2_onnx import convert_dinov2
from vertebra.model.encoders.vision.onnx_file import read_onnx
from vertebra.model.encoders.vision.tower import VisionTower

WIDTH, LAYERS, PATCH, SIDE = 64, 2, 14, 3
NAMES = {"q_proj": "attention/query", "k_proj": "attention/key", "v_proj": "attention/value", "o_proj": "output/dense"}


def varint(number: int) -> bytes:
    out = b""
    while True:
        number, low = number >> 7, number & 0x7F
        out += bytes([low | (0x80 if number else 0)])
        if not number:
            return out


def field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def tensor(name: str, value: torch.Tensor, *, packed: bool = False) -> bytes:
    dims = field(1, b"".join(map(varint, value.shape))) if packed else b"".join(field(1, n) for n in value.shape)
    raw = value.detach().contiguous().numpy().astype("<f4").tobytes()
    return field(5, dims + field(2, 1) + field(8, name) + field(9, raw))


def exported(model: Dinov2Model) -> bytes:
    """As an exporter lays it out: matrices anonymous and transposed, each used by a node named after its layer."""
    graph, count = b"", 0
    state = model.state_dict()
    positions = state.pop("embeddings.position_embeddings")
    state.pop("embeddings.mask_token")
    graph += tensor("onnx::Concat_1", positions[:, :1]) + tensor("onnx::Reshape_2", positions[:, 1:], packed=True)
    for name, value in state.items():
        layer = name.rpartition(".")[0]
        path = layer.replace(".", "/").replace("layer/", "layer.")
        public = "backbone." + name
        for ours, theirs in NAMES.items():
            path = path.replace(f"attention/{ours}", f"attention/{theirs}")
            public = public.replace(f"attention.{ours}", "attention." + theirs.replace("/", "."))
        if name.endswith("weight") and value.ndim == 2 and layer.startswith("encoder"):
            count += 1
            graph += tensor(f"onnx::MatMul_{count}", value.T)
            node = field(1, f"/backbone/{path}/in") + field(1, f"onnx::MatMul_{count}") + field(2, "out")
            graph += field(1, node + field(3, f"/backbone/{path}/MatMul") + field(4, "MatMul"))
        else:
            graph += tensor(public, value, packed=bool(count % 2))
    # what an exporter leaves besides: a list of whole numbers, and a decoder
    shape = field(1, 2) + field(2, 7) + field(8, "shape") + field(9, struct.pack("<2q", 1, 2))
    graph += field(5, shape) + tensor("decoder.weight", torch.ones(2, 2))
    return field(1, 8) + field(2, "exporter") + field(7, graph)


@pytest.fixture(scope="module")
def model() -> Dinov2Model:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=1, mlp_ratio=2, patch_size=PATCH,
        image_size=SIDE * PATCH,
    )  # fmt: skip
    made = Dinov2Model(config).eval()
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture
def file(model, tmp_path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(exported(model))
    return path


def test_features_are_those_of_the_exported_model(model, file, tmp_path):
    folder = convert_dinov2(file, tmp_path / "dino")
    tower = VisionTower.load(folder, block=-1, image_size=SIDE * PATCH).eval()
    pixels = torch.rand(2, 3, SIDE * PATCH, SIDE * PATCH)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (tower.mean, tower.std))
    with torch.inference_mode():
        expected = model((pixels - mean) / std, output_hidden_states=True).hidden_states[-1][:, 1:]
        found = tower(pixels)
    assert found.shape == (2, SIDE * SIDE, WIDTH)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_every_tensor_is_used_once(model, file, tmp_path):
    folder = convert_dinov2(file, tmp_path / "dino")
    again = Dinov2Model.from_pretrained(folder)
    for name, value in model.state_dict().items():
        if name != "embeddings.mask_token":
            assert torch.equal(again.state_dict()[name], value), name


def test_the_reader_gives_floats_by_name(file):
    onnx = read_onnx(file)
    assert np.array_equal(onnx.tensors["decoder.weight"], np.ones((2, 2)))
    assert "shape" not in onnx.tensors
    assert sum(node.op == "MatMul" for node in onnx.nodes) == 6 * LAYERS


def test_damage_is_our_error(file, tmp_path):
    data = file.read_bytes()
    draw = random.Random(0)
    for _ in range(60):
        mutated = bytearray(data[: draw.randrange(len(data))] if draw.random() < 0.5 else data)
        for _ in range(draw.randrange(4)):
            if mutated:
                mutated[draw.randrange(len(mutated))] = draw.randrange(256)
        (tmp_path / "bad.onnx").write_bytes(mutated)
        with contextlib.suppress(CheckpointError):
            convert_dinov2(tmp_path / "bad.onnx", tmp_path / "out", replace=True)


def test_another_model_is_refused(tmp_path):
    (tmp_path / "other.onnx").write_bytes(field(7, tensor("layer.weight", torch.ones(2, 2))))
    with pytest.raises(CheckpointError, match="no DINOv2 backbone"):
        convert_dinov2(tmp_path / "other.onnx", tmp_path / "out")
