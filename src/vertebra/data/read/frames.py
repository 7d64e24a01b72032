"""Frames of episodes as an encoder takes them: decoded and prepared once, then mapped from the disk.

    films ──decode──► [H, W, 3] ──prepare──► [3, S, S] ──► frames.npy     under a key of films, preparation and frames

A training asks for the same frames many times and in no order, which films are slow at; what is kept is read at the speed
of memory, by any number of workers, and holds the frames that a training uses alone. It knows no samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.backbone.tiny.write import cache_folder
from vertebra.data.read.progress import progress
from vertebra.data.read.rows import digest
from vertebra.errors import DataError
from vertebra.folders import write_whole

FILE = "frames.npy"
Decode = Callable[[int, Sequence[int]], np.ndarray]
"""(episode, frames) -> 8-bit [n, H, W, 3]."""
Prepare = Callable[[Sequence[np.ndarray]], np.ndarray]
"""[n] images [H, W, 3] -> [n, 3, S, S]."""


class Frames:
    """One camera's frames of some episodes: `frames(episode, [0, 3])` gives 8-bit [n, 3, S, S]."""

    def __init__(self, decode: Decode, prepare: Prepare) -> None:
        self.decode, self.prepare = decode, prepare

    def __call__(self, episode: int, frames: Sequence[int]) -> np.ndarray:
        return self.prepare(list(self.decode(episode, frames)))


class KeptFrames(Frames):
    """The same from a file, which is made where there is none yet. `requested`: {episode: its frames, ascending}."""

    def __init__(
        self,
        decode: Decode,
        prepare: Prepare,
        *,
        requested: Mapping[int, Sequence[int]],
        size: int,
        content: str,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(decode, prepare)
        self.requested = {episode: np.asarray(frames, np.int64) for episode, frames in requested.items()}
        self._firsts = dict(
            zip(
                self.requested,
                np.cumsum([0, *(len(one) for one in self.requested.values())])[:-1].tolist(),
                strict=True,
            )
        )
        self.count, self.size = sum(len(one) for one in self.requested.values()), size
        key = digest("frames", content, size, [(episode, one.tolist()) for episode, one in self.requested.items()])
        self.folder = Path(folder or cache_folder() / "frames") / key[:32]
        if not (self.folder / FILE).is_file():
            write_whole(self.folder, self._write, replace=False)
        self._rows: np.ndarray | None = None

    def __call__(self, episode: int, frames: Sequence[int]) -> np.ndarray:
        if self._rows is None:  # each worker maps the file itself
            self._rows = np.load(self.folder / FILE, mmap_mode="r").view(np.ndarray)
        known = self.requested[episode]
        at = np.searchsorted(known, np.asarray(frames))
        assert (known[np.minimum(at, len(known) - 1)] == frames).all(), "a frame that was not asked for before"
        return self._rows[self._firsts[episode] + at]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}

    def _write(self, part: Path) -> None:
        shape = (self.count, 3, self.size, self.size)
        rows = np.lib.format.open_memmap(part / FILE, mode="w+", dtype=np.uint8, shape=shape)
        with progress("frames", self.count, unit="frames") as advance:
            for episode, frames in self.requested.items():
                first = self._firsts[episode]
                made = self.prepare(list(self.decode(episode, frames.tolist())))
                if made.shape != (len(frames), *shape[1:]):
                    raise DataError(
                        f"episode {episode} gave frames of shape {made.shape}; expected {shape[1:]} of each"
                    )
                rows[first : first + len(frames)] = made
                advance(len(frames))
        rows.flush()
