"""`Table`: tokenized rows as flat arrays, in memory or mapped from the cache, with file and line of each.

    chunk 0    ids  [ 5 9 2 ┊ 7 7 ┊ 1 4 4 2 ]     offsets [0 3 5 9]     line [1 2 5]     fault {…}
    chunk 1    ids  [ … ]

A row that could not be used stays as an empty row with its fault, so that a cached table reports the same faults as
the scan that made it. Nothing is copied until a sample is asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vertebra.data.read.rows import Fault, digest, place_of
from vertebra.data.samples.samples import Samples, Vectors

LISTS = {
    "ids": np.int32,
    "target": np.int32,
    "weight": np.float32,
    "role": np.int8,
    "type": np.int8,
    "block": np.int8,
    "word": np.int32,
    "slot": np.int32,
}
"""Vectors that a table can hold. `slot` has two numbers a position; `word` (whose word a token is) serves masking."""


@dataclass(frozen=True)
class RowChunk:
    """Some rows, flat."""

    offsets: np.ndarray
    columns: Mapping[str, np.ndarray]
    """Vectors by name, all rows one after the other; those of `LISTS` that the encoder makes."""
    lines: np.ndarray
    items: np.ndarray
    """The number of each row in its JSON array; 0 where it stands in none."""
    file_names: Sequence[str]
    file_codes: np.ndarray
    scale: np.ndarray | None = None
    """How much each whole row counts, where not all are 1."""
    faults: Mapping[int, str] = field(default_factory=dict)
    extras: Mapping[int, str] = field(default_factory=dict)
    """JSON of what belongs to a row beside its tokens."""

    def __len__(self) -> int:
        return len(self.lines)

    def file(self, row: int) -> str:
        return self.file_names[int(self.file_codes[row])]

    def where(self, row: int) -> str:
        return place_of(self.file(row), int(self.lines[row]), int(self.items[row]))


class Table(Samples):
    """All rows of a source, tokenized; a sample is a row. Rows with faults are counted in `faults` and are no samples."""

    def __init__(self, chunks: Sequence[RowChunk], *, meta: Mapping[str, Any]) -> None:
        self.chunks = [chunk for chunk in chunks if len(chunk)]
        self.opened_by: tuple[Callable[..., Sequence[RowChunk]], tuple[Any, ...]] | None = None
        """How another process opens the same chunks, where they lie in a cache."""
        self.meta = dict(meta)
        """What made it: objective, tokenizer fingerprint, data fingerprint, format, options."""
        lengths = [np.diff(chunk.offsets) for chunk in self.chunks]
        good = [_good(chunk) for chunk in self.chunks]
        self._chunk = np.repeat(np.arange(len(good)), [len(rows) for rows in good])
        self._row = np.concatenate([*good, np.zeros(0, np.int64)])
        self.lengths = np.concatenate(
            [np.zeros(0, np.int64), *[length[rows] for length, rows in zip(lengths, good, strict=True)]]
        )
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        """Where each sample begins in the stream of all tokens."""
        self._chunk_starts = np.concatenate([[0], np.cumsum([int(chunk.offsets[-1]) for chunk in self.chunks])])

    @property
    def tokens(self) -> int:
        return int(self.starts[-1])

    @property
    def faults(self) -> list[Fault]:
        return [
            Fault(chunk.file(row), int(chunk.lines[row]), message, int(chunk.items[row]))
            for chunk in self.chunks
            for row, message in sorted(chunk.faults.items())
        ]

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        chunk, row = self._place(index)
        start, stop = int(chunk.offsets[row]), int(chunk.offsets[row + 1])
        found: Vectors = {name: values[start:stop] for name, values in chunk.columns.items() if name != "word"}
        if chunk.scale is not None and chunk.scale[row] != 1:
            found["weight"] = found.get("weight", np.ones(stop - start, np.float32)) * chunk.scale[row]
        if row in chunk.extras and "slot" in found:
            found["segments"] = tuple(json.loads(chunk.extras[row]).get("segments", ()))
        return found

    def words(self, index: int) -> np.ndarray:
        """Whose word each token is; −1 for a special token."""
        chunk, row = self._place(index)
        return chunk.columns["word"][int(chunk.offsets[row]) : int(chunk.offsets[row + 1])]

    def where(self, index: int) -> str:
        chunk, row = self._place(index)
        return chunk.where(row)

    def extra(self, index: int, epoch: int = 0) -> Mapping[str, Any]:
        chunk, row = self._place(index)
        return json.loads(chunk.extras[row]) if row in chunk.extras else {}

    def fingerprint(self) -> str:
        return str(self.meta["fingerprint"])

    def stream(self, name: str, start: int, stop: int) -> np.ndarray:
        """Positions `start:stop` of a vector, all samples one after the other. Rows with faults are empty in it."""
        first = int(np.searchsorted(self._chunk_starts, start, side="right")) - 1
        pieces = []
        at = start
        for number in range(first, len(self.chunks)):
            if at >= stop:
                break
            base, end = int(self._chunk_starts[number]), int(self._chunk_starts[number + 1])
            pieces.append(self.chunks[number].columns[name][at - base : min(stop, end) - base])
            at = min(stop, end)
        return pieces[0] if len(pieces) == 1 else np.concatenate([*pieces, np.zeros(0, LISTS[name])])

    def scales(self, first: int, last: int) -> np.ndarray | None:
        """How much samples `first:last` count, or None where all count 1."""
        if not self.scaled:
            return None
        return np.array(
            [1.0 if (scale := self._place(i)[0].scale) is None else scale[self._row[i]] for i in range(first, last)]
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The vectors it holds."""
        return tuple(self.chunks[0].columns) if self.chunks else ("ids",)

    @property
    def scaled(self) -> bool:
        """Whether some samples count more than others."""
        return any(chunk.scale is not None for chunk in self.chunks)

    def _place(self, index: int) -> tuple[RowChunk, int]:
        return self.chunks[int(self._chunk[index])], int(self._row[index])

    def __reduce__(self) -> tuple[Any, ...]:
        by = self.opened_by or (list, (self.chunks,))
        return _opened, (*by, self.meta)

    def __repr__(self) -> str:
        return f"Table({len(self):,} samples, {self.tokens:,} tokens, {sum(len(c.faults) for c in self.chunks)} faults)"


def hash_of(chunk: RowChunk) -> str:
    """A hash of everything that the samples of a chunk say."""
    made = hashlib.blake2b(np.ascontiguousarray(chunk.offsets).tobytes(), digest_size=16)
    for name in sorted(chunk.columns):
        made.update(name.encode())
        made.update(np.ascontiguousarray(chunk.columns[name]).tobytes())
    return digest(made.hexdigest(), None if chunk.scale is None else chunk.scale.tolist(), sorted(chunk.extras.items()))


def _opened(by: Callable[..., Sequence[RowChunk]], arguments: tuple[Any, ...], meta: Mapping[str, Any]) -> Table:
    table = Table(by(*arguments), meta=meta)
    table.opened_by = (by, arguments)
    return table


def _good(chunk: RowChunk) -> np.ndarray:
    """Rows that are samples: no fault, and at least one position."""
    good = np.diff(chunk.offsets) > 0
    good[list(chunk.faults)] = False
    return np.flatnonzero(good)


class ChunkBuilder:
    """Rows with their places, one by one, and their vectors, one by one or all at once, into a chunk."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._rows: dict[str, list[np.ndarray]] = {name: [] for name in self.columns}
        self._lines: list[int] = []
        self._items: list[int] = []
        self._files: list[str] = []
        self._scales: dict[int, float] = {}
        self._faults: dict[int, str] = {}
        self._extras: dict[int, str] = {}
        self._empty: list[int] = []

    def place(
        self, file: str, line: int, *, item: int = 0, scale: float = 1.0, extra: Mapping[str, Any] | None = None
    ) -> None:
        """A row whose vectors follow: by `vectors`, or for all rows at once in `built`."""
        row = len(self._lines)
        self._lines.append(line)
        self._items.append(item)
        self._files.append(file)
        if scale != 1:
            self._scales[row] = scale
        if extra:
            self._extras[row] = json.dumps(extra, ensure_ascii=False)

    def vectors(self, vectors: Mapping[str, np.ndarray]) -> None:
        for name in self.columns:
            self._rows[name].append(vectors[name])

    def fault(self, fault: Fault) -> None:
        """A row that cannot be used."""
        self._empty.append(len(self._lines))
        self._faults[len(self._lines)] = fault.message
        self.place(fault.file, fault.line, item=fault.item)

    def built(self, lengths: np.ndarray | None = None, columns: Mapping[str, np.ndarray] | None = None) -> RowChunk:
        """The chunk; `lengths` and `columns` hold the rows without faults, where they were made all at once."""
        if columns is None:
            columns = {name: _flat(name, rows) for name, rows in self._rows.items()}
            lengths = np.array([len(row) for row in self._rows["ids"]], np.int64)
        assert lengths is not None
        full = np.zeros(len(self._lines), np.int64)
        used = np.ones(len(self._lines), bool)
        used[self._empty] = False
        full[used] = lengths
        names = list(dict.fromkeys(self._files))
        code = {name: number for number, name in enumerate(names)}
        scale = np.ones(len(self._lines), np.float32)
        scale[list(self._scales)] = list(self._scales.values())
        return RowChunk(
            offsets=np.concatenate([[0], np.cumsum(full)]).astype(np.int64),
            columns=columns,
            lines=np.array(self._lines, np.int64),
            items=np.array(self._items, np.int64),
            file_names=names,
            file_codes=np.array([code[name] for name in self._files], np.int32),
            scale=scale if self._scales else None,
            faults=self._faults,
            extras=self._extras,
        )


def _flat(name: str, rows: list[np.ndarray]) -> np.ndarray:
    empty = np.zeros((0, 2) if name == "slot" else 0, LISTS[name])
    return np.concatenate([empty, *rows]).astype(LISTS[name], copy=False)


def documents_of(table: Table, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(sample, from, to) of every sample that has positions in `start:stop` of the stream; places count from `start`."""
    first = int(np.searchsorted(table.starts, start, side="right")) - 1
    for sample in range(first, len(table)):
        low, high = int(table.starts[sample]), int(table.starts[sample + 1])
        if low >= stop:
            return
        if high > max(low, start):
            yield sample, max(low, start) - start, min(high, stop) - start
