"""`VectorRows`: vectors by number, on disk, mapped: computed once, whole or not at all, and found again under their key.

    values.npy   [T, width] fp32: the vectors of all rows, one after the other
    starts.npy   [N + 1]    where each row begins

It knows neither models nor samples.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vertebra import log
from vertebra.backbone.tiny.write import cache_folder
from vertebra.data.read.progress import progress
from vertebra.errors import CheckpointError, ConfigError
from vertebra.folders import write_whole
from vertebra.reading import reading

VALUES, STARTS = "values.npy", "starts.npy"

Compute = Callable[[], Iterator[tuple[Sequence[int], Sequence[np.ndarray]]]]
"""Batches of (row numbers, their vectors [L, width])."""


class VectorRows:
    """The vectors of each row; a copy in another process maps the same file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mapped: tuple[np.ndarray, np.ndarray] | None = None

    def __getitem__(self, number: int) -> np.ndarray:
        values, starts = self._open()
        return values[starts[number] : starts[number + 1]]

    def __len__(self) -> int:
        return len(self._open()[1]) - 1

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_mapped": None}

    def _open(self) -> tuple[np.ndarray, np.ndarray]:
        if self._mapped is None:
            advice = "delete that folder; it is made again"
            with reading(f"the cached features in {self.folder} are damaged", advice, error=CheckpointError):
                values = np.load(self.folder / VALUES, mmap_mode="r")
                starts = np.load(self.folder / STARTS)
                if len(values) != starts[-1]:
                    raise CheckpointError(f"{len(values)} vectors for {starts[-1]}")
            self._mapped = values, starts
        return self._mapped


def rows_of(key: str, lengths: Sequence[int], width: int, compute: Compute, *, what: str) -> VectorRows:
    """The rows under a key of the user's cache, computed now where they are not there yet.

    `what`: what they are, for messages, as in "image features".
    """
    folder = cache_folder() / "features" / key
    if folder.is_dir():
        log.info(f"{len(lengths):,} {what} from {folder}")
        return VectorRows(folder)
    starts = np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))])
    size = int(starts[-1]) * width * 4
    _require_room(folder, size, what)
    log.info(f"computing {len(lengths):,} {what} once ({size / 1e6:,.0f} MB, kept in {folder})")

    def fill(part: Path) -> None:
        values = np.lib.format.open_memmap(part / VALUES, "w+", np.float32, (int(starts[-1]), width))
        done = 0
        with progress(what, len(lengths), unit="rows") as advance:
            for numbers, vectors in compute():
                for number, vector in zip(numbers, vectors, strict=True):
                    values[starts[number] : starts[number + 1]] = vector
                done += len(numbers)
                advance(len(numbers))
        assert done == len(lengths), "every row is computed once"
        values.flush()
        np.save(part / STARTS, starts)

    return VectorRows(write_whole(folder, fill, replace=False))


def weights_of(*modules: torch.nn.Module) -> str:
    """A hash of all weights of some modules."""
    made = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            made.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
            made.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return made.hexdigest()


def _require_room(folder: Path, size: int, what: str) -> None:
    there = next(place for place in folder.parents if place.exists())
    free = shutil.disk_usage(there).free
    if size > 0.95 * free:
        raise ConfigError(
            f"the {what} take {size / 1e9:.1f} GB and {there} has {free / 1e9:.1f} GB free; make room, name another cache "
            "(VERTEBRA_CACHE), or compute them at every step (leave `cache` out)"
        )
