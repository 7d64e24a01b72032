"""Safetensors files written straight from memory, their SHA-256 made on the way; in shards where there is much.

The library's own writer copies every tensor first, and a hash made afterwards reads the file again: for a checkpoint
that is written beside the training, both are time taken from its steps. Neither hashing nor writing holds the
interpreter's lock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

SHARD = 5 * 10**9
INDEX = "model.safetensors.index.json"
_CHUNK = 4 << 20  # hashed, then written while it is still in the processor's cache
_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> str:
    """Write tensors; returns the SHA-256 of the file. Contiguous ones of the CPU are not copied."""
    marked = hashlib.sha256()
    _write(tensors, path, marked.update)
    return marked.hexdigest()


def _write(tensors: Mapping[str, torch.Tensor], path: Path, seen: Callable[[Any], object] | None = None) -> None:
    """The file, every stretch of it shown to `seen` before it is written."""
    head, ordered = _head(tensors)
    if seen is not None:
        seen(head)
    with open(path, "wb", buffering=0) as file:
        file.write(head)
        for tensor in ordered:
            data = memoryview(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
            for start in range(0, len(data), _CHUNK):
                part = data[start : start + _CHUNK]
                if seen is not None:
                    seen(part)
                while part:  # an unbuffered write may take less than it was given
                    part = part[file.write(part) :]


def save_shards(tensors: Mapping[str, torch.Tensor], folder: Path, *, largest: int = SHARD) -> list[str]:
    """`model.safetensors`, or shards of at most `largest` bytes with their index, as Hugging Face names them. Tensors that
    are mapped or contiguous are not copied; returns the names of the files."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    sizes = [0]
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if shards[-1] and sizes[-1] + size > largest:
            shards.append({})
            sizes.append(0)
        shards[-1][name] = tensor
        sizes[-1] += size
    if len(shards) == 1:
        _write(shards[0], folder / "model.safetensors")
        return ["model.safetensors"]
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write(shard, folder / name)
    placed = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    index = {"metadata": {"total_size": sum(sizes)}, "weight_map": dict(sorted(placed.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return [*names, INDEX]


def _head(tensors: Mapping[str, torch.Tensor]) -> tuple[bytes, list[torch.Tensor]]:
    """The header of the format, and the tensors in the order in which they follow: the widest types first, aligned."""
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, [tensors[name] for name in names]
