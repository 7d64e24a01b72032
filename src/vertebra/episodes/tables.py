"""Parquet as numpy: which rows of a file are which episode's, and one column of them.

A file holds one episode or thousands, in one row group or in one each. What is read is a whole row group of one column,
and the last ones are kept up to a bound, so that both layouts are quick. It does not know what a column means.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.episodes.needed import arrow, parquet
from vertebra.episodes.recent import Recent
from vertebra.errors import DataError, did_you_mean
from vertebra.reading import reading

FILES = 16
"""Files that stay open."""
BYTES = 1 << 27
"""Of decoded columns that are kept."""
LFS = b"version https://git-lfs"
ADVICE = "fetch or copy the set again; `vertebra data check` lists all that is missing"


@contextmanager
def whole_file(path: Path) -> Iterator[None]:
    """Around a reader of a file that may be absent, cut off, or the pointer that Git LFS leaves in its place."""
    if not path.is_file():
        raise DataError(f"`{path}` is missing; {ADVICE}")
    with reading(f"`{path}` cannot be read", ADVICE, error=DataError):
        with open(path, "rb") as file:
            if file.read(len(LFS)) == LFS:
                raise DataError(f"`{path}` is a pointer that Git LFS leaves for a file; fetch it with: git lfs pull")
        yield


class ParquetRows:
    """One open parquet file."""

    def __init__(self, path: Path, *, one: bool) -> None:
        self.path, self.one = path, one
        with whole_file(path):
            self.file = parquet().ParquetFile(path, memory_map=False, pre_buffer=False)
            meta = self.file.metadata
            sizes = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
            self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
            self.columns = tuple(self.file.schema_arrow.names)
            self.spots: dict[int, int] = {}
            """In how many places of the file each episode stands; more than one is a fault of whoever wrote it."""
            self.runs = {} if one else self._runs()

    def _runs(self) -> dict[int, tuple[int, int]]:
        """{episode: (first row, rows)}; of an episode that stands in several places, the longest one."""
        self.require("episode_index")
        what = f"`{self.path}`, column `episode_index`"
        column = self.file.read(["episode_index"], use_threads=False).column(0)
        numbers = whole_numbers(as_numpy(column, what), what)
        edges = np.flatnonzero(np.diff(numbers)) + 1
        firsts = np.concatenate([[0], edges]) if len(numbers) else edges
        counts = np.diff(np.concatenate([firsts, [len(numbers)]]))
        found: dict[int, tuple[int, int]] = {}
        for first, count in zip(firsts.tolist(), counts.tolist(), strict=True):
            episode = int(numbers[first])
            self.spots[episode] = self.spots.get(episode, 0) + 1
            if count > found.get(episode, (0, 0))[1]:
                found[episode] = (first, count)
        return found

    def place(self, episode: int) -> tuple[int, int]:
        """(first row, rows) of an episode."""
        if self.one:
            return 0, int(self.starts[-1])
        if episode not in self.runs:
            raise DataError(f"`{self.path}` has no row of episode {episode}, which should stand there; {ADVICE}")
        return self.runs[episode]

    def require(self, column: str) -> None:
        if column not in self.columns:
            raise DataError(
                f"`{self.path}` has no column `{column}`.{did_you_mean(column, self.columns)} It has: "
                f"{', '.join(self.columns[:20])}"
            )

    def groups(self, first: int, count: int) -> range:
        """The row groups that hold these rows."""
        begin = int(np.searchsorted(self.starts, first, "right")) - 1
        end = int(np.searchsorted(self.starts, first + count, "left"))
        return range(begin, end)

    def read(self, group: int, column: str) -> Any:
        with reading(f"`{self.path}` cannot be read", ADVICE, error=DataError):
            return self.file.read_row_group(group, columns=[column], use_threads=False).column(0)


class Tables:
    """All data files of a set; the last of them stay open."""

    def __init__(self, folder: Path, *, one: bool) -> None:
        self.folder, self.one = folder, one
        self._files: Recent[ParquetRows] = Recent(FILES)
        self._columns: Recent[Any] = Recent(BYTES, weight=_size)

    def rows(self, name: str) -> ParquetRows:
        return self._files.get(name, lambda: ParquetRows(self.folder / name, one=self.one))

    def count(self, name: str, episode: int) -> int:
        return self.rows(name).place(episode)[1]

    def spots(self, name: str, episode: int) -> int:
        """In how many places of a file an episode stands; the longest of them is read."""
        return self.rows(name).spots.get(episode, 1)

    def column(self, name: str, episode: int, column: str) -> np.ndarray:
        """One column of an episode, as an array of its own."""
        with self._files.alone():
            rows = self.rows(name)
            rows.require(column)
            first, count = rows.place(episode)
            if not count:
                return np.zeros(0)
            parts = []
            for group in rows.groups(first, count):
                values = self._columns.get((name, group, column), partial(self._decoded, rows, group, column))
                offset = int(rows.starts[group])
                parts.append(values[max(first - offset, 0) : first + count - offset])
            return np.concatenate(parts)

    def objects(self, name: str, episode: int, column: str) -> Any:
        """A column of an episode as arrow has it."""
        with self._files.alone():
            rows = self.rows(name)
            rows.require(column)
            first, count = rows.place(episode)
            groups = rows.groups(first, count)
            parts = [part for group in groups for part in rows.read(group, column).chunks]
            whole = arrow().chunked_array(parts).slice(first - int(rows.starts[groups[0]]), count)
            return whole.combine_chunks()

    def items(self, name: str, episode: int, column: str, at: list[int]) -> list[Any]:
        """Some rows of a column of objects (images), as Python has them."""
        with self._files.alone():
            rows = self.rows(name)
            rows.require(column)
            first, _ = rows.place(episode)
            found = []
            for row in at:
                group = rows.groups(first + row, 1)[0]
                values = self._columns.get((name, group, column), partial(rows.read, group, column))
                found.append(values[first + row - int(rows.starts[group])].as_py())
            return found

    @staticmethod
    def _decoded(rows: ParquetRows, group: int, column: str) -> np.ndarray:
        with reading(f"`{rows.path}` cannot be read", ADVICE, error=DataError):
            return as_numpy(rows.read(group, column), f"`{rows.path}`, column `{column}`")


def as_numpy(column: Any, what: str = "a column") -> np.ndarray:
    """A column as [rows, …]: lists of one length become axes, text an array of objects; a missing float is NaN."""
    pa = arrow()
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # of no chunks
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    shape = [len(array)]
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        kind = array.type
        if pa.types.is_fixed_size_list(kind):
            array, size = array.flatten(), kind.list_size
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lengths = np.diff(array.offsets.to_numpy())
            if len(lengths) and (lengths != lengths[0]).any():
                raise DataError(f"{what} has rows of {sorted(set(lengths.tolist()))[:6]} numbers; expected one length")
            array, size = array.flatten(), int(lengths[0]) if len(lengths) else 0
        else:
            break
        shape.append(size)
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    if array.null_count and (pa.types.is_integer(array.type) or pa.types.is_boolean(array.type)):
        raise DataError(f"{what} has {array.null_count} rows without a value; expected a number in each")
    expected = int(np.prod(shape))
    if len(array) != expected:
        raise DataError(f"{what} has {expected - len(array)} numbers less than its rows need: a list is missing")
    return array.to_numpy(zero_copy_only=False).reshape(shape)


def whole_numbers(values: np.ndarray, what: str) -> np.ndarray:
    """Numbers that count something, as integers: floats are taken where they are whole, texts and gaps are not."""
    flat = values.reshape(-1) if values.ndim == 2 and values.shape[1] == 1 else values
    right = flat.ndim == 1 and flat.dtype.kind in "iuf" and bool((flat == np.floor(flat)).all())
    right = right and bool((np.abs(flat) < 2.0**63).all())  # neither NaN nor infinite, and an integer can hold it
    if not right:
        raise DataError(f"{what} holds what is no whole number; the table is damaged, fetch or copy it again")
    return flat.astype(np.int64)


def _size(kept: Any) -> int:
    return int(kept.nbytes)
