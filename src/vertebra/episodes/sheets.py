"""Parquet files that are written a row group after the other, the next file where one is full, and the table of tasks as
a pandas frame would be written. It does not know what the rows mean.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vertebra.episodes.films import PER_CHUNK
from vertebra.episodes.needed import arrow, parquet


class Sheets:
    """The files of one template, `…/chunk-000/file-000.parquet`."""

    def __init__(self, folder: Path, template: str, *, most: float, first: int = 0) -> None:
        self.folder, self.template, self.most, self.file = folder, template, most, first
        """`most`: bytes of a file."""
        self._out: Any = None
        self._writer: Any = None
        self._rows = 0

    def place(self, rows: int) -> tuple[int, int]:
        """(chunk, file) of the next rows, so many: of a new file, where the one that is open would be too large."""
        if self._rows and self._out.tell() * (1 + rows / self._rows) >= self.most:
            self.close()
            self.file += 1
        return self.file // PER_CHUNK, self.file % PER_CHUNK

    def write(self, table: Any) -> None:
        """Rows as a row group."""
        if self._writer is None:
            chunk, file = self.file // PER_CHUNK, self.file % PER_CHUNK
            path = self.folder / self.template.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._out = open(path, "wb")  # noqa: SIM115  it stays open from episode to episode
            self._writer = parquet().ParquetWriter(self._out, table.schema, compression="snappy")
        self._writer.write_table(table, row_group_size=max(len(table), 1))
        self._rows += len(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._out.close()
        self._writer = self._out = None
        self._rows = 0


def write_tasks(path: Path, sentences: Sequence[str]) -> None:
    """`task_index` by sentence, as pandas writes a frame whose index is called `task`."""
    pa = arrow()
    columns = [
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
    ]
    of_frame = {
        "name": None,
        "field_name": None,
        "pandas_type": "unicode",
        "numpy_type": "object",
        "metadata": {"encoding": "UTF-8"},
    }
    note = {
        "index_columns": ["task"], "column_indexes": [of_frame], "columns": columns,
        "creator": {"library": "pyarrow", "version": pa.__version__}, "pandas_version": "2.2.3",
    }  # fmt: skip
    table = pa.table(
        {"task_index": pa.array(range(len(sentences)), pa.int64()), "task": pa.array(sentences, pa.string())}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet().write_table(table.replace_schema_metadata({"pandas": json.dumps(note)}), path)
