"""`Aside`: what came with a model from elsewhere and has no part in it; kept, so that it can be written back.

    aside.safetensors    tensors that are never run, under the names they came with
    aside/               small files, byte for byte

It knows neither whose they are nor what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vertebra.backbone.tensorfile import save_tensors
from vertebra.backbone.weights import mapped_file
from vertebra.errors import CheckpointError

TENSORS, FILES = "aside.safetensors", "aside"
_LARGEST = 64 * 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class Aside:
    """Tensors and small files that travel with a model."""

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tensors or self.files)

    def write(self, folder: Path) -> None:
        """Into a folder that exists."""
        if self.tensors:
            save_tensors(self.tensors, folder / TENSORS)
        for name, content in self.files.items():
            (folder / FILES).mkdir(exist_ok=True)
            (folder / FILES / name).write_bytes(content)

    @classmethod
    def read(cls, folder: Path) -> Aside:
        """What a folder has of it, tensors mapped; nothing where it has nothing."""
        tensors, files = folder / TENSORS, {}
        for file in sorted((folder / FILES).iterdir()) if (folder / FILES).is_dir() else ():
            if not file.is_file() or file.stat().st_size > _LARGEST:
                raise CheckpointError(f"`{file}` is no small file, and nothing of ours; remove it")
            files[file.name] = file.read_bytes()
        return cls(tensors=mapped_file(tensors) if tensors.is_file() else {}, files=files)
