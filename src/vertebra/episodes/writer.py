"""A set of episodes that is written an episode at a time, in LeRobot's v3.0, and appears whole.

    with EpisodeWriter("set", fps=10, cameras={"observation.images.top": (96, 96)}, numbers={"action": ["x", "y"]}) as out:
        out.add("push the cube", {"action": actions}, {"observation.images.top": images})

Everything goes into a hidden folder beside it, which takes the name when the block ends without an error. Appending links
the files that are there into that folder and writes new ones, so that a crash leaves the old set as it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from vertebra.episodes.facts import DATA, EPISODES, Numbers
from vertebra.episodes.films import Films, require_codec
from vertebra.episodes.former import Former, former_of
from vertebra.episodes.given import Given, require_names, written_numbers
from vertebra.episodes.needed import arrow
from vertebra.episodes.pictures import picture_bytes
from vertebra.episodes.sheets import Sheets, write_tasks
from vertebra.episodes.statistics import Stats, joined, of_images, of_numbers, plain
from vertebra.episodes.written import info_of
from vertebra.errors import ConfigError, DataError
from vertebra.folders import require_free, require_place, whole

MEGABYTE = 1 << 20
WAITING = 100
"""Rows of the table of episodes that wait, so that it has few row groups."""


class EpisodeWriter:
    """A context manager; `add` takes one whole episode."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        fps: int,
        cameras: Mapping[str, tuple[int, int]],
        numbers: Mapping[str, Sequence[str]],
        robot: str | None = None,
        codec: Literal["h264", "av1", "image"] = "h264",
        floats: Literal["float32", "float64"] = "float32",
        append: bool = False,
        overwrite: bool = False,
        data_mb: float = 100,
        video_mb: float = 200,
    ) -> None:
        """`cameras`: {key: (height, width)}; `numbers`: {key: a name for each dimension}. What is no 32-bit float is stored
        as `floats`, whole numbers as 64 bits."""
        if isinstance(fps, bool) or not isinstance(fps, int) or fps < 1:
            raise ConfigError(f"fps is {fps!r}; expected a whole number of frames a second, 1 or more")
        require_names(cameras, numbers)
        require_codec(codec, cameras)
        arrow("writing episodes")
        self.folder, self.fps, self.robot, self.codec, self.floats = Path(folder), fps, robot, codec, floats
        self.cameras = {key: (int(height), int(width)) for key, (height, width) in cameras.items()}
        self.names = {key: tuple(names) for key, names in numbers.items()}
        self._data_bytes, self._video_bytes = data_mb * MEGABYTE, video_mb * MEGABYTE
        self._sizes = {"data_files_size_in_mb": data_mb, "video_files_size_in_mb": video_mb}
        self._former = former_of(self.folder) if append else Former()
        if not append:
            require_free(self.folder, overwrite=overwrite)
        elif overwrite:
            raise ConfigError("append and overwrite exclude each other; choose one")
        self._replace = append or overwrite
        self._former.require_same(fps=fps, cameras=self.cameras, names=self.names, codec=codec)
        require_place(self.folder)
        self._stack = ExitStack()
        self._state: Literal["new", "open", "closed", "broken"] = "new"
        self.tasks = list(self._former.tasks)
        self.episodes, self.frames = self._former.episodes, self._former.frames
        self.numbers: dict[str, Numbers] = dict(self._former.numbers)
        self._stats: dict[str, Stats] = dict(self._former.stats)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> EpisodeWriter:
        if self._state != "new":
            raise ConfigError("an EpisodeWriter is used once; make another one")
        part = self._stack.enter_context(whole(self.folder, replace=self._replace))
        self._former.link(part)
        self._part, self._state = part, "open"
        self._data = Sheets(part, DATA, most=self._data_bytes, first=self._former.data_file)
        self._table = Sheets(part, EPISODES, most=self._data_bytes, first=self._former.episodes_file)
        self._films = {
            key: Films(
                part, key, fps=self.fps, size=size, codec=self.codec, most=self._video_bytes,
                first=self._former.video_files.get(key, 0),
            )
            for key, size in self.cameras.items()
            if self.codec != "image"
        }  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state, self._state = self._state, "closed"
        if error is not None or state == "broken":
            self._close_files(silently=True)
            failed = error or DataError(f"`{self.folder}` is not written: an episode could not be added")
            self._stack.__exit__(type(failed), failed, trace)
            if error is None:
                raise failed
            return
        with self._stack:  # an error from here on leaves nothing either
            self._finish()

    def add(self, sentence: str, numbers: Mapping[str, Any], images: Mapping[str, Any]) -> int:
        """One whole episode: {key: (length, dims)}, {key: uint8 (length, height, width, 3)}; its index is returned.

        What does not fit is refused before anything of it is written.
        """
        if self._state != "open":
            raise ConfigError("episodes are added inside `with EpisodeWriter(…) as writer:`")
        given = Given.of(sentence, numbers, images, names=self.names, cameras=self.cameras, floats=self.floats)
        if not self.numbers:
            self.numbers = written_numbers(given, self.names)
        given.require_dtypes(self.numbers)
        self._state = "broken"
        self._write(given)
        self._state = "open"
        return self.episodes - 1

    def _write(self, given: Given) -> None:
        stats = {key: of_numbers(values) for key, values in given.numbers.items()}
        stats |= {key: of_images(images) for key, images in given.images.items()}
        counted = self._counted(given)
        stats |= {key: of_numbers(values) for key, values in counted.items()}
        clips: dict[str, Any] = {}
        for key, film in self._films.items():
            clips |= film.add(given.images[key])
        chunk, file = self._data.place(given.length)
        self._data.write(self._rows_of(given, counted))
        row = {
            "episode_index": self.episodes,
            "tasks": [given.sentence],
            "length": given.length,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + given.length,
            "data/chunk_index": chunk,
            "data/file_index": file,
            **clips,
        }
        row |= {f"stats/{key}/{name}": value.tolist() for key, one in stats.items() for name, value in one.items()}
        self._rows.append(row)
        self.episodes, self.frames = self.episodes + 1, self.frames + given.length
        self._stats = {
            key: joined([self._stats[key], one]) if key in self._stats else one for key, one in stats.items()
        }
        if len(self._rows) >= WAITING:
            self._flush()

    def _counted(self, given: Given) -> dict[str, np.ndarray]:
        """The columns that every set has."""
        if given.sentence not in self.tasks:
            self.tasks.append(given.sentence)
        frames = np.arange(given.length)
        return {
            "timestamp": (frames / self.fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(given.length, self.episodes),
            "index": frames + self.frames,
            "task_index": np.full(given.length, self.tasks.index(given.sentence)),
        }

    def _rows_of(self, given: Given, counted: Mapping[str, np.ndarray]) -> Any:
        pa = arrow()
        columns = {key: _column(values) for key, values in given.numbers.items()}
        if self.codec == "image":
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            for key, images in given.images.items():
                rows = [
                    {"bytes": picture_bytes(image), "path": f"frame-{frame:06d}.png"}
                    for frame, image in enumerate(images)
                ]
                columns[key] = pa.array(rows, kind)
        return pa.table({**columns, **{key: pa.array(values) for key, values in counted.items()}})

    def _flush(self) -> None:
        if not self._rows:
            return
        chunk, file = self._table.place(len(self._rows))
        self._table.write(
            arrow().Table.from_pylist(
                [{**row, "meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file} for row in self._rows]
            )
        )
        self._rows = []

    def _finish(self) -> None:
        if self.episodes == self._former.episodes:
            raise DataError(f"`{self.folder}` is not written: no episode was added")
        if not self._replace:
            require_free(self.folder, overwrite=False)  # somebody else may have been quicker
        self._flush()
        self._close_files(silently=False)
        meta = self._part / "meta"
        write_tasks(meta / "tasks.parquet", self.tasks)
        info = info_of(
            fps=self.fps, robot=self.robot or self._former.robot, cameras=self.cameras, numbers=self.numbers,
            codec=self.codec, episodes=self.episodes, frames=self.frames, tasks=len(self.tasks), sizes=self._sizes,
        )  # fmt: skip
        _write_json(meta / "info.json", {**self._former.raw, **info})
        _write_json(meta / "stats.json", plain(self._stats))

    def _close_files(self, *, silently: bool) -> None:
        files: list[Sheets | Films] = [self._data, self._table, *self._films.values()]
        for file in files:
            try:
                file.close()
            except Exception:
                if not silently:
                    raise


def _column(values: np.ndarray) -> Any:
    """[frames] or [frames, 1] as scalars, [frames, D] as lists of one length."""
    pa = arrow()
    if values.shape[1] == 1:
        return pa.array(np.ascontiguousarray(values[:, 0]))
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    import json

    path.unlink(missing_ok=True)  # a link to the file of the set that is appended to
    path.write_text(json.dumps(content, indent=4, allow_nan=False) + "\n", encoding="utf-8")
