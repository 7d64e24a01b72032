"""A DINOv2 backbone out of an ONNX file as an ordinary vision folder: config, weights, how images are prepared.

An exporter keeps the names of norms and biases, but folds each linear's matrix into an anonymous, transposed tensor;
the node that uses it still carries the name of its layer. Positions come as two anonymous tensors, of the class token
and of the patches. Whatever else the file holds (a decoder on top) is left out.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from vertebra import compat
from vertebra.errors import CheckpointError
from vertebra.folders import write_whole
from vertebra.model.encoders.vision.onnx_file import OnnxFile, read_onnx

_ROOT = "backbone."
_LINEAR = re.compile(r"^/backbone/(encoder/layer\.\d+/.+)/MatMul$")
# Names of the linears as published, and as today's class has them.
_RENAMED = (
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
)
_HEAD_WIDTH = 64
_PREPARATION = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def convert_dinov2(file: Path, folder: Path, *, replace: bool = False) -> Path:
    """Write the DINOv2 backbone of an ONNX file as a folder that `VisionTower.load` and transformers read."""
    tensors = _named(read_onnx(file), file)
    return write_whole(folder, lambda part: _write(tensors, file, part), replace=replace)


def _named(onnx: OnnxFile, file: Path) -> dict[str, torch.Tensor]:
    """The tensors under the names of transformers' class, matrices the right way round."""
    found = {name.removeprefix(_ROOT): value for name, value in onnx.tensors.items() if name.startswith(_ROOT)}
    for node in onnx.nodes:
        match = _LINEAR.match(node.name)
        matrices = [name for name in node.inputs if name in onnx.tensors]
        if node.op == "MatMul" and match and matrices:
            found[match[1].replace("/", ".") + ".weight"] = onnx.tensors[matrices[0]].T
    found["embeddings.position_embeddings"] = _positions(onnx, file)
    return {_today(name): torch.from_numpy(np.array(value, np.float32)) for name, value in found.items()}


def _positions(onnx: OnnxFile, file: Path) -> np.ndarray:
    """[1, 1 + patches, D]: the class token's position before those of the patches."""
    first = onnx.tensors.get(f"{_ROOT}embeddings.cls_token")
    width = 0 if first is None else first.shape[-1]
    anonymous = [
        value for name, value in onnx.tensors.items() if name.startswith("onnx::") and value.shape[::2] == (1, width)
    ]
    one = [value for value in anonymous if value.shape[1] == 1]
    many = [value for value in anonymous if value.shape[1] > 1]
    if len(one) != 1 or len(many) != 1:
        raise CheckpointError(f"`{file}` holds no DINOv2 backbone: its positions are not where an export puts them")
    return np.concatenate([one[0], many[0]], 1)


def _today(name: str) -> str:
    for before, after in _RENAMED:
        name = name.replace(before, after)
    return name


def _write(tensors: dict[str, torch.Tensor], file: Path, part: Path) -> None:
    model = transformers.Dinov2Model(_config(tensors)).eval()
    absent = model.load_state_dict({**_unused(model), **tensors}, strict=False)
    if absent.missing_keys or absent.unexpected_keys:
        raise CheckpointError(
            f"`{file}` is no DINOv2 backbone as it is known here: {len(absent.missing_keys)} tensors are lacking "
            f"({absent.missing_keys[:3]}), {len(absent.unexpected_keys)} have no place ({absent.unexpected_keys[:3]})"
        )
    with compat.bars_only_in_terminals():
        model.save_pretrained(part)
    (part / "preprocessor_config.json").write_text(json.dumps(_PREPARATION, indent=1), encoding="utf-8")


def _unused(model: Any) -> dict[str, torch.Tensor]:
    """The mask token, which pre-training alone uses and an export leaves out: zeros, as in the published files."""
    name = "embeddings.mask_token"
    return {name: torch.zeros_like(model.get_parameter(name))}


def _config(tensors: dict[str, torch.Tensor]) -> Any:
    """The config that the shapes describe; heads of DINOv2 are 64 wide in every size."""
    patches = tensors["embeddings.patch_embeddings.projection.weight"]
    width, patch = patches.shape[0], patches.shape[-1]
    side = round((tensors["embeddings.position_embeddings"].shape[1] - 1) ** 0.5)
    layers = {int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer.")}
    return transformers.Dinov2Config(
        hidden_size=width,
        num_hidden_layers=len(layers),
        num_attention_heads=width // _HEAD_WIDTH,
        mlp_ratio=tensors["encoder.layer.0.mlp.fc1.bias"].shape[0] // width,
        image_size=side * patch,
        patch_size=patch,
    )
