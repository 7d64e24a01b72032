"""The sentences of a set: `meta/tasks.parquet` (v3) or `meta/tasks.jsonl` (v2), in the order of their numbers.

Parquet keeps the sentence in the index of a pandas frame, under a name or under none. It knows no episodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vertebra.episodes.needed import parquet
from vertebra.episodes.tables import whole_file
from vertebra.errors import DataError, shortened
from vertebra.reading import json_of

GAPS = 1000
"""Numbers without a sentence that a table may have."""


def read_tasks(folder: Path) -> tuple[str, ...]:
    """Every sentence by its number; an empty one where a number has none."""
    table, lines = folder / "meta" / "tasks.parquet", folder / "meta" / "tasks.jsonl"
    if table.is_file():
        pairs, path = _of_parquet(table), table
    elif lines.is_file():
        pairs, path = list(_of_lines(lines)), lines
    else:
        return ()
    sentences: dict[int, str] = {}
    for number, sentence in pairs:
        if isinstance(number, bool) or not isinstance(number, int) or number < 0 or not isinstance(sentence, str):
            raise DataError(
                f"`{path}` has the task {number!r:.20}: {sentence!r:.40}; expected a number from 0 on and a sentence"
            )
        sentences[number] = sentence
    size = max(sentences, default=-1) + 1
    if size > len(sentences) + GAPS:
        raise DataError(f"`{path}` has {len(sentences)} tasks, one of them with the number {size - 1}; it is damaged")
    return tuple(sentences.get(number, "") for number in range(size))


def _of_parquet(path: Path) -> list[tuple[Any, Any]]:
    with whole_file(path):
        table = parquet().read_table(path, use_threads=False)
        texts = [name for name in table.column_names if "string" in str(table.schema.field(name).type)]
        if "task_index" not in table.column_names or not texts:
            raise DataError(
                f"`{path}` has the columns {', '.join(table.column_names)}; expected `task_index` and the sentences"
            )
        # the index of the frame comes last, and is called `task`, or nothing
        name = "task" if "task" in texts else texts[-1]
        return list(zip(table["task_index"].to_pylist(), table[name].to_pylist(), strict=True))


def _of_lines(path: Path) -> Iterator[tuple[Any, Any]]:
    for where, row in json_lines(path):
        if "task_index" not in row or "task" not in row:
            raise DataError(f"{where} has {', '.join(map(str, row)) or 'nothing'}; expected `task_index` and `task`")
        yield row["task_index"], row["task"]


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) of every line of a file of JSON lines."""
    with whole_file(path):
        lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        where = f"`{path}`, line {number},"
        if not line.strip():
            continue
        try:
            row = json_of(line)
        except ValueError as error:
            raise DataError(f"{where} is not valid JSON ({error}); fetch or copy the file again") from error
        if not isinstance(row, dict):
            raise DataError(f"{where} is {shortened(repr(row), 60)}; expected an object with named entries")
        yield where, row
