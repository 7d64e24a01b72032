"""The tables of a set of v3.0 while it is written: rows of the data, the table of episodes, tasks, statistics, info.json.

An episode that is entered gets its number, its place in the set, and the columns that every set has. Where its frames come
from (an encoder, a column, files of an older set) is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.episodes.facts import DATA, EPISODES
from vertebra.episodes.former import Former
from vertebra.episodes.needed import arrow
from vertebra.episodes.sheets import Sheets, write_tasks
from vertebra.episodes.statistics import Stats, joined, of_numbers, plain
from vertebra.episodes.written import info_of
from vertebra.errors import DataError

WAITING = 100
"""Rows of the table of episodes that wait, so that it has few row groups."""


class Ledger:
    """The tables of one folder."""

    def __init__(self, folder: Path, former: Former, *, fps: int | float, most: float) -> None:
        """`most`: bytes of a data file."""
        self.folder, self.former, self.fps = folder, former, fps
        self.tasks = list(former.tasks)
        self.episodes, self.frames = former.episodes, former.frames
        self.data = Sheets(folder, DATA, most=most, first=former.data_file)
        self.table = Sheets(folder, EPISODES, most=most, first=former.episodes_file)
        self._stats: dict[str, Stats] = dict(former.stats)
        self._rows: list[dict[str, Any]] = []

    def enter(
        self,
        sentences: Sequence[str],
        columns: Mapping[str, Any],
        *,
        clips: Mapping[str, Any],
        stats: Mapping[str, Stats],
    ) -> int:
        """An episode by the sentence of each frame, its columns as arrow has them, and where its frames lie; its index."""
        length = len(sentences)
        counted = self._counted(sentences)
        stats = {**stats, **{key: of_numbers(values) for key, values in counted.items()}}
        chunk, file = self.data.place(length)
        pa = arrow()
        self.data.write(pa.table({**columns, **{key: pa.array(values) for key, values in counted.items()}}))
        row = {
            "episode_index": self.episodes,
            "tasks": list(dict.fromkeys(sentences)),
            "length": length,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + length,
            "data/chunk_index": chunk,
            "data/file_index": file,
            **clips,
        }
        row |= {f"stats/{key}/{name}": value.tolist() for key, one in stats.items() for name, value in one.items()}
        self._rows.append(row)
        self._count(stats)
        self.episodes, self.frames = self.episodes + 1, self.frames + length
        if len(self._rows) >= WAITING:
            self._flush()
        return self.episodes - 1

    def finish(
        self, features: Mapping[str, Any], *, robot: str | None, videos: bool, sizes: Mapping[str, float]
    ) -> None:
        """Everything that stands in `meta/`; no episode can be entered after it."""
        if self.episodes == self.former.episodes:
            raise DataError("the set is not written: no episode was added")
        self._flush()
        self.close()
        meta = self.folder / "meta"
        write_tasks(meta / "tasks.parquet", self.tasks)
        info = info_of(
            features, fps=self.fps, robot=robot or self.former.robot, videos=videos, episodes=self.episodes,
            frames=self.frames, tasks=len(self.tasks), sizes=sizes,
        )  # fmt: skip
        _write_json(meta / "info.json", {**self.former.raw, **info})
        _write_json(meta / "stats.json", plain(self._stats))

    def close(self) -> None:
        self.data.close()
        self.table.close()

    def _counted(self, sentences: Sequence[str]) -> dict[str, np.ndarray]:
        """The columns that every set has."""
        self.tasks += [one for one in dict.fromkeys(sentences) if one not in self.tasks]
        number = {sentence: at for at, sentence in enumerate(self.tasks)}
        frames = np.arange(len(sentences))
        return {
            "timestamp": (frames / self.fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(len(frames), self.episodes),
            "index": frames + self.frames,
            "task_index": np.array([number[sentence] for sentence in sentences]),
        }

    def _count(self, stats: Mapping[str, Stats]) -> None:
        """Join the statistics of an episode; what the former set has none of would be of the new episodes alone."""
        if self.episodes == 0:
            self._stats = dict(stats)
            return
        self._stats = {key: joined([one, stats[key]]) for key, one in self._stats.items() if key in stats}

    def _flush(self) -> None:
        if not self._rows:
            return
        chunk, file = self.table.place(len(self._rows))
        place = {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        self.table.write(arrow().Table.from_pylist([row | place for row in self._rows]))
        self._rows = []


def column_of(values: np.ndarray) -> Any:
    """[frames] or [frames, 1] as scalars, [frames, D] as lists of one length."""
    pa = arrow()
    rows = np.ascontiguousarray(values.reshape(len(values), -1))
    if rows.shape[1] == 1:
        return pa.array(rows[:, 0])
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.unlink(missing_ok=True)  # a link to the file of the set that is appended to
    path.write_text(json.dumps(content, indent=4, allow_nan=False) + "\n", encoding="utf-8")
