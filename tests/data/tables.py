"""Tables made by hand, in several chunks, with faults between the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from vertebra.data.read.rows import Fault, digest
from vertebra.data.samples.table import ChunkBuilder, Table


def table_of(
    rows: Sequence[Sequence[int] | None], *, chunk: int = 3, scales: Sequence[float] | None = None, **columns: Any
) -> Table:
    """A table of these ids; None is a row with a fault. `columns` hold the other vectors of each row."""
    chunks = []
    for start in range(0, len(rows), chunk):
        made = ChunkBuilder(("ids", *columns))
        for index in range(start, min(start + chunk, len(rows))):
            row = rows[index]
            if row is None:
                made.fault(Fault("rows", index + 1, "bad: made so"))
                continue
            made.place("rows", index + 1, scale=1.0 if scales is None else scales[index])
            vectors = {name: np.asarray(given[index]) for name, given in columns.items()}
            made.vectors({"ids": np.asarray(row, np.int32)} | vectors)
        chunks.append(made.built())
    return Table(chunks, meta={"fingerprint": digest(rows)})


def rows_strategy(*, most: int = 9, longest: int = 7) -> st.SearchStrategy[list[list[int] | None]]:
    """Rows of distinct ids (so that nothing lost and nothing twice can be seen), some of them faults."""
    sizes = st.lists(st.one_of(st.none(), st.integers(1, longest)), min_size=1, max_size=most)
    return sizes.filter(lambda given: any(given)).map(_numbered)


def _numbered(sizes: list[int | None]) -> list[list[int] | None]:
    rows: list[list[int] | None] = []
    next_id = 0
    for size in sizes:
        rows.append(None if size is None else list(range(next_id, next_id + size)))
        next_id += size or 0
    return rows
