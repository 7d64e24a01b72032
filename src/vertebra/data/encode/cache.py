"""The cache of tokenized data: one folder a key, made whole or not at all, written and read through `datasets`.

The key is a hash of the data, the tokenizer, the options and the pipeline's version; a change of any of them is
another folder, so that nothing old can be taken for it. A folder that cannot be written is reported before the work
begins, a disk that fills up is reported when it does, and neither leaves a half-made entry behind.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.encode.tokens import one_thread_in_this_process
from vertebra.data.read.tables import datasets_library
from vertebra.data.samples.table import LISTS, ChunkBuilder, RowChunk
from vertebra.errors import DataError
from vertebra.reading import reading

PIPELINE = 1
"""Raised whenever the same data and options would give other tokens than before."""

LAYOUT = 3
"""Raised whenever the same tokens lie otherwise in an entry; one of another layout is made again under its key."""

MANIFEST = "manifest.json"

BATCH_ROWS = 2**20
"""The most rows of an Arrow batch: more than a span has, so that a span is one. A batch costs kilobytes, to whoever
writes it, opens it or holds it, however few rows it has."""


class Cache:
    """Tables in a folder, by key."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def check_writable(self) -> None:
        """Checked before any work is done. What is there already can be read from a folder that nobody may write."""
        _check_writable(self.folder)

    def find(self, key: str) -> Path | None:
        """The folder of an entry, or None where there is none, or one of an earlier layout."""
        entry = self.folder / key
        try:
            layout = json.loads((entry / MANIFEST).read_text()).get("layout")
        except OSError:
            return None
        except (ValueError, AttributeError):
            return entry  # damaged: reading it tells
        return entry if layout == LAYOUT else None

    def read(self, entry: Path) -> list[RowChunk]:
        """The chunks of an entry, mapped from disk."""
        advice = "delete that folder, it will be made again"
        with reading(f"the cached data in {entry} is damaged", advice, error=DataError):
            return read_entry(entry)

    def drop(self, entry: Path) -> None:
        """Forget an entry. Who has it open keeps reading it: the files go when nobody needs them."""
        shutil.rmtree(entry, ignore_errors=True)

    @contextmanager
    def filling(self, key: str) -> Iterator[Path]:
        """A new entry: fill the folder that is given; it gets its name when everything went well."""
        with _full_disk_reported(self.folder):
            part = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=self.folder))
            try:
                yield part
                files = sorted(file.name for file in part.glob("*.arrow"))
                (part / MANIFEST).write_text(json.dumps({"pipeline": PIPELINE, "layout": LAYOUT, "files": files}))
                if self.find(key) is None:
                    self.drop(self.folder / key)
                _rename(part, self.folder / key)
            finally:
                shutil.rmtree(part, ignore_errors=True)


def mapped(
    spans: Sequence[tuple[int, int]],
    encode: Callable[[int, int], Iterable[RowChunk]],
    columns: Sequence[str],
    *,
    folder: Path,
    num_proc: int,
) -> None:
    """`datasets.map` over spans of units: each process encodes its share and writes it to its own file in `folder`."""
    datasets = datasets_library("caching tokenized data")
    held = datasets.Dataset.from_dict({"start": [a for a, _ in spans], "stop": [b for _, b in spans]})
    bars = datasets.utils.logging.is_progress_bar_enabled()
    datasets.utils.logging.disable_progress_bar()
    try:
        held.with_format("arrow").map(
            _Mapping(encode, tuple(columns), forked=num_proc > 1),
            batched=True,
            batch_size=1,
            writer_batch_size=BATCH_ROWS,
            remove_columns=["start", "stop"],
            features=_features(datasets, columns),
            cache_file_name=str(folder / "rows.arrow"),
            load_from_cache_file=False,
            new_fingerprint=folder.name.strip("."),
            num_proc=num_proc if num_proc > 1 else None,
        )
    finally:
        if bars:
            datasets.utils.logging.enable_progress_bar()


class _Mapping:
    """What each process runs; a class, so that it can be sent there."""

    def __init__(
        self, encode: Callable[[int, int], Iterable[RowChunk]], columns: tuple[str, ...], *, forked: bool
    ) -> None:
        self.encode, self.columns, self.forked = encode, columns, forked

    def __call__(self, table: Any) -> Any:
        import pyarrow as pa

        if self.forked:
            one_thread_in_this_process()
        chunks = self.encode(table["start"][0].as_py(), table["stop"][0].as_py())
        tables = [to_arrow(chunk, self.columns) for chunk in chunks]
        return pa.concat_tables(tables or [to_arrow(ChunkBuilder(self.columns).built(), self.columns)])


def to_arrow(chunk: RowChunk, columns: Sequence[str]) -> Any:
    """A chunk as an Arrow table; its arrays are handed over, not converted one by one."""
    import pyarrow as pa

    made: dict[str, Any] = {}
    for name in columns:
        values, offsets = chunk.columns[name], chunk.offsets
        if name == "slot":
            values, offsets = values.reshape(-1), offsets * 2
        made[name] = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
    rows = range(len(chunk))
    made["line"] = pa.array(chunk.lines)
    made["item"] = pa.array(chunk.items)
    made["file"] = pa.array([chunk.file(row) for row in rows], pa.string())
    made["scale"] = pa.array(np.ones(len(chunk), np.float32) if chunk.scale is None else chunk.scale)
    made["fault"] = pa.array([chunk.faults.get(row) for row in rows], pa.string())
    made["extra"] = pa.array([chunk.extras.get(row) for row in rows], pa.string())
    return pa.table(made)


def read_entry(entry: Path) -> list[RowChunk]:
    """All chunks of an entry. Another process opens a cached table by this, instead of being sent its arrays."""
    names = json.loads((entry / MANIFEST).read_text())["files"]
    return [chunk for name in names for chunk in read_chunks(entry / name)]


def read_chunks(path: Path) -> Iterator[RowChunk]:
    """The chunks of one file; the vectors stay on the disk until they are used."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        for batch in pa.ipc.open_stream(file):
            yield _chunk(batch)


def _chunk(batch: Any) -> RowChunk:
    columns: dict[str, np.ndarray] = {}
    offsets = np.zeros(batch.num_rows + 1, np.int64)
    for name in [field for field in batch.schema.names if field in LISTS]:
        column = batch.column(name)
        raw = column.offsets.to_numpy()
        values = column.values.to_numpy()[int(raw[0]) : int(raw[-1])]
        columns[name] = values.reshape(-1, 2) if name == "slot" else values
        if name == "ids":
            offsets = raw - raw[0]
    files = batch.column("file").dictionary_encode()
    scale = batch.column("scale").to_numpy()
    return RowChunk(
        offsets=offsets,
        columns=columns,
        lines=batch.column("line").to_numpy(),
        items=batch.column("item").to_numpy(),
        file_names=files.dictionary.to_pylist(),
        file_codes=files.indices.to_numpy(),
        scale=scale if (scale != 1).any() else None,
        faults=_present(batch.column("fault")),
        extras=_present(batch.column("extra")),
    )


def _present(column: Any) -> Mapping[int, str]:
    """Row → text, of the rows that have one."""
    if column.null_count == len(column):
        return {}
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    return {int(row): column[int(row)].as_py() for row in rows}


def _features(datasets: Any, columns: Sequence[str]) -> Any:
    value = datasets.Value
    lists = {name: datasets.LargeList(value(np.dtype(LISTS[name]).name)) for name in columns}
    plain = {
        "line": "int64",
        "item": "int64",
        "file": "string",
        "scale": "float32",
        "fault": "string",
        "extra": "string",
    }
    return datasets.Features(lists | {name: value(kind) for name, kind in plain.items()})


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(
            f"the cache folder {folder} cannot be written: {error.strerror or error}. Name another with cache=FOLDER "
            "(or VERTEBRA_CACHE), or work without one: cache=False"
        ) from error


@contextmanager
def _full_disk_reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(
                f"the disk of the cache folder {folder} is full; nothing half-made was left behind. Free some space, "
                "name another folder with cache=FOLDER, or work without one: cache=False"
            ) from error
        raise


def _rename(part: Path, entry: Path) -> None:
    """Give an entry its name; where another process was first, its entry is as good."""
    part.chmod(0o755)
    try:
        os.rename(part, entry)
    except OSError:
        if not (entry / MANIFEST).is_file():
            raise
