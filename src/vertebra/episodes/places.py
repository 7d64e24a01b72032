"""Which episodes there are, and in which file and where in it their rows and frames lie: of v3 from `meta/episodes`, of v2
from `meta/episodes.jsonl` and templates. Arrays over all episodes, so that a hundred thousand cost little.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vertebra.episodes.facts import Episode, Info, filled
from vertebra.episodes.needed import arrow, parquet
from vertebra.episodes.tables import as_numpy, whole_file
from vertebra.episodes.tasks import json_lines
from vertebra.errors import DataError

LARGEST = 1 << 48
"""Beyond any number of frames or episodes."""


class EpisodePlaces(Protocol):
    """Where things lie; `at` is the place of an episode in the list."""

    episodes: tuple[Episode, ...]

    def data(self, at: int) -> str:
        """The parquet file, under the set's folder."""

    def clip(self, at: int, camera: str) -> tuple[str, float]:
        """The video file and the second at which the episode begins in it."""


def find_places(folder: Path, info: Info) -> EpisodePlaces:
    return NewPlaces(folder, info) if info.major >= 3 else OldPlaces(folder, info)


class OldPlaces:
    """v2: a file an episode."""

    def __init__(self, folder: Path, info: Info) -> None:
        self.folder, self.info = folder, info
        path = folder / "meta" / "episodes.jsonl"
        found = [_old_row(where, row) for where, row in json_lines(path)]
        found.sort(key=lambda row: row[0])
        starts = np.cumsum([0, *(length for _, length, _ in found)]).tolist()
        self.episodes = tuple(
            Episode(index, length, start, tasks)
            for (index, length, tasks), start in zip(found, starts[:-1], strict=True)
        )
        _require_single(self.episodes, path)

    def data(self, at: int) -> str:
        return filled(self.info.data_path, self.folder, **self._values(at))

    def clip(self, at: int, camera: str) -> tuple[str, float]:
        assert self.info.video_path is not None
        return filled(self.info.video_path, self.folder, video_key=camera, **self._values(at)), 0.0

    def _values(self, at: int) -> dict[str, Any]:
        index = self.episodes[at].index
        return {"episode_chunk": index // self.info.chunks_size, "episode_index": index}


def _old_row(where: str, row: dict[str, Any]) -> tuple[int, int, tuple[str, ...]]:
    index, length, tasks = row.get("episode_index"), row.get("length"), row.get("tasks") or []
    if not _counts(index) or not _counts(length) or not isinstance(tasks, list):
        raise DataError(f"{where} is {row!r:.120}; expected `episode_index`, `length` and a list of `tasks`")
    return index, length, tuple(task for task in tasks if isinstance(task, str))  # type: ignore[return-value]


class NewPlaces:
    """v3: many episodes a file, by a table of them."""

    def __init__(self, folder: Path, info: Info) -> None:
        self.folder, self.info = folder, info
        table, path = _episodes_table(folder)
        order = np.argsort(as_numpy(table["episode_index"]), kind="stable")
        table = table.take(order)
        self._columns = {
            name: _whole_numbers(table, name, path)
            for name in table.column_names
            if name.startswith(("data/", "videos/")) and name.endswith(("/chunk_index", "/file_index"))
        }
        self._starts = {
            name: as_numpy(table[name]).astype(np.float64)
            for name in table.column_names
            if name.startswith("videos/") and name.endswith("/from_timestamp")
        }
        self._path = path
        self.episodes = _new_episodes(table, path)
        _require_single(self.episodes, path)

    def data(self, at: int) -> str:
        chunk, file = self._number("data/chunk_index", at), self._number("data/file_index", at)
        return filled(self.info.data_path, self.folder, chunk_index=chunk, file_index=file)

    def clip(self, at: int, camera: str) -> tuple[str, float]:
        assert self.info.video_path is not None
        where = f"videos/{camera}"
        chunk, file = self._number(f"{where}/chunk_index", at), self._number(f"{where}/file_index", at)
        start = self._starts.get(f"{where}/from_timestamp")
        name = filled(self.info.video_path, self.folder, video_key=camera, chunk_index=chunk, file_index=file)
        if start is None or not np.isfinite(start[at]):
            raise DataError(f"`{self._path}` does not tell where in `{name}` episode {self.episodes[at].index} begins")
        return name, float(start[at])

    def _number(self, name: str, at: int) -> int:
        if name not in self._columns:
            raise DataError(f"`{self._path}` has no column `{name}`; its episodes cannot be found")
        return int(self._columns[name][at])


def _episodes_table(folder: Path) -> tuple[Any, Path]:
    """All rows of all files of episodes, without their statistics, which are most of it."""
    top = folder / "meta" / "episodes"
    paths = sorted(top.glob("*/*.parquet"))
    if not paths:
        raise DataError(f"`{top}` has no table of episodes (chunk-000/file-000.parquet); fetch or copy the set again")
    parts = []
    for path in paths:
        with whole_file(path):
            file = parquet().ParquetFile(path)
            names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            missing = [name for name in ("episode_index", "length") if name not in names]
            if missing:
                raise DataError(f"`{path}` has no column {' and no '.join(f'`{name}`' for name in missing)}")
            parts.append(file.read(names, use_threads=False))
    return arrow().concat_tables(parts, promote_options="permissive"), top


def _new_episodes(table: Any, path: Path) -> tuple[Episode, ...]:
    indices = _whole_numbers(table, "episode_index", path).tolist()
    lengths = _whole_numbers(table, "length", path).tolist()
    starts = np.cumsum([0, *lengths])[:-1].tolist()
    if "dataset_from_index" in table.column_names:
        starts = _whole_numbers(table, "dataset_from_index", path).tolist()
    tasks = table["tasks"].to_pylist() if "tasks" in table.column_names else [None] * len(indices)
    return tuple(
        Episode(index, length, start, tuple(task for task in given or () if isinstance(task, str)))
        for index, length, start, given in zip(indices, lengths, starts, tasks, strict=True)
    )


def _whole_numbers(table: Any, name: str, path: Path) -> np.ndarray:
    values = as_numpy(table[name], f"`{path}`, column `{name}`")
    numbers = values.astype(np.int64) if values.dtype.kind in "iuf" and np.isfinite(values).all() else None
    if numbers is None or (numbers < 0).any() or (numbers != values).any() or (numbers >= LARGEST).any():
        raise DataError(f"`{path}`, column `{name}`, holds what is no whole number from 0 on; the table is damaged")
    return numbers


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def _require_single(episodes: tuple[Episode, ...], path: Path) -> None:
    seen: set[int] = set()
    double = {one.index for one in episodes if one.index in seen or seen.add(one.index)}  # type: ignore[func-returns-value]
    if double:
        raise DataError(f"`{path}` has several episodes with one number: {sorted(double)[:6]}; expected each once")
