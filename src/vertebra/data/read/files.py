"""One file as a source of rows: text, JSON lines, a JSON array, CSV and Parquet.

Each class says what a unit of its file is and how a unit becomes a row; lines are counted so that a fault can be found
with an editor. What the columns mean is decided in `data.formats`.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from vertebra.data.read.compressed import MAX_LINE, decoded, lines, raw_lines, read_text
from vertebra.data.read.json_array import items
from vertebra.data.read.progress import progress
from vertebra.data.read.rows import Fault, Raw, Row, Source, digest
from vertebra.errors import DataError, MissingPartError, UnknownNameError
from vertebra.reading import json_of, reading

TextUnit = Literal["line", "paragraph", "file"]
TEXT_UNITS: tuple[TextUnit, ...] = ("line", "paragraph", "file")

LARGE = 16 * 2**20
"""Bytes of a file from which on its scan has a progress bar."""


class FileSource(Source):
    """What all files share: a path, and a content that can be hashed."""

    def __init__(self, path: Path, *, max_line: int = MAX_LINE) -> None:
        self.path, self.max_line = path, max_line
        self.name = str(path)
        self._counted: int | None = None
        self._hash: str | None = None

    def units(self) -> int | None:
        if self._counted is None:
            self._counted = self._count()
        return self._counted

    def fingerprint(self) -> str | None:
        """Of the bytes alone, so that what is cached already is found without a walk over the units."""
        if self._hash is None:
            self._hash = _content(self.path)
        return digest(type(self).__name__, self._options(), self._hash)

    def _options(self) -> tuple[object, ...]:
        """Settings that change what is read from the same bytes."""
        return (self.max_line,)

    def _count(self) -> int:
        """How many units; by a walk, where nothing cheaper is known."""
        count = 0
        with progress(f"scanning {self.path.name}", None, show=self.path.stat().st_size > LARGE) as advance:
            for _ in self.raw():
                count += 1
                if count % 1000 == 0:
                    advance(1000)
        return count

    def _as_row(self, fields: Any, line: int, item: int = 0) -> Row | Fault:
        if not isinstance(fields, dict):
            return Fault(self.name, line, f"not an object: expected columns with values, got {_called(fields)}", item)
        return Row(fields, self.name, line, item)


class TextFile(FileSource):
    """Plain text: a sample is a line, a paragraph (between blank lines) or the whole file."""

    def __init__(self, path: Path, *, unit: TextUnit = "line", max_line: int = MAX_LINE) -> None:
        super().__init__(path, max_line=max_line)
        if unit not in TEXT_UNITS:
            raise UnknownNameError("unit of text", unit, TEXT_UNITS)
        self.unit = unit

    def raw(self, start: int = 0) -> Iterator[Raw]:
        if self.unit == "line":
            yield from raw_lines(self.path, start, self.max_line)
        elif self.unit == "file":
            if start == 0:
                yield Raw(0, 1, read_text(self.path))
        else:
            for index, (line, data) in enumerate(_paragraphs(self.path, self.max_line)):
                if index >= start:
                    yield Raw(index, line, data)

    def parse(self, raw: Raw) -> Row | Fault | None:
        text = decoded(raw.data, self.name, raw.line) if isinstance(raw.data, bytes) else raw.data
        if isinstance(text, Fault):
            return text
        return Row({"text": text}, self.name, raw.line) if text.strip() else None

    def _options(self) -> tuple[object, ...]:
        return self.unit, self.max_line


class JsonLines(FileSource):
    """One JSON object a line."""

    def raw(self, start: int = 0) -> Iterator[Raw]:
        return raw_lines(self.path, start, self.max_line)

    def parse(self, raw: Raw) -> Row | Fault | None:
        if isinstance(raw.data, Fault):
            return raw.data
        if not raw.data.strip():
            return None
        text = decoded(raw.data, self.name, raw.line)
        if isinstance(text, Fault):
            return text
        try:
            return self._as_row(json_of(text), raw.line)
        except json.JSONDecodeError as error:
            return Fault(self.name, raw.line, f"malformed JSON: {error.msg} at column {error.colno}{_hint(text)}")
        except ValueError as error:
            return Fault(self.name, raw.line, f"malformed JSON: {error}")


class JsonArray(FileSource):
    """A file that is one JSON array of objects, as LLaVA and Alpaca data are shared. It is held in memory as text."""

    def raw(self, start: int = 0) -> Iterator[Raw]:
        text = read_text(self.path)
        if isinstance(text, Fault):
            yield Raw(0, 1, text)
            return
        for index, (line, item) in enumerate(items(text, self.name)):
            if index >= start:
                yield Raw(index, line, item)

    def parse(self, raw: Raw) -> Row | Fault | None:
        if isinstance(raw.data, Fault):
            return raw.data
        return self._as_row(raw.data, raw.line, raw.number + 1)


class CsvFile(FileSource):
    """A table with a header line; the delimiter is a comma, or a tab in a `.tsv`."""

    def __init__(self, path: Path, *, delimiter: str = ",", max_line: int = MAX_LINE) -> None:
        super().__init__(path, max_line=max_line)
        self.delimiter = delimiter

    def raw(self, start: int = 0) -> Iterator[Raw]:
        # The csv module refuses fields above 128 kB by a setting of the whole process; it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), self.max_line))
        faults: list[Fault] = []
        records = csv.reader(
            self._text(faults),
            delimiter=self.delimiter,
            strict=True,
            quoting=csv.QUOTE_NONE if self.delimiter == "\t" and self._has_plain_quotes() else csv.QUOTE_MINIMAL,
        )
        header: list[str] | None = None
        index, line = 0, 1
        while True:
            record: list[str] | Fault | None
            try:
                record = next(records, None)
            except csv.Error as error:
                record = Fault(self.name, records.line_num, f"malformed CSV: {error}")
            if record is None:
                break
            start_line, line = line, records.line_num + 1
            if header is None:
                header = self._header(record)
            elif record:  # an empty list is a blank line
                if index >= start:
                    data = record if isinstance(record, Fault) else (header, record)
                    yield Raw(index, start_line, data)
                index += 1
        for fault in faults:
            yield Raw(index, fault.line, fault)
            index += 1

    def parse(self, raw: Raw) -> Row | Fault | None:
        if isinstance(raw.data, Fault):
            return raw.data
        header, record = raw.data
        if len(record) != len(header):
            message = f"ragged CSV: {len(record)} fields, the header has {len(header)}"
            return Fault(self.name, raw.line, message)
        for value in record:
            if not value.isascii() and any("\udc80" <= char <= "\udcff" for char in value):
                return Fault(self.name, raw.line, "invalid UTF-8 in a field")
        return Row(dict(zip(header, record, strict=True)), self.name, raw.line)

    def _has_plain_quotes(self) -> bool:
        """Whether quotes in this TSV are marks like others, as MRPC and GLUE write them: its lines have as many fields as
        the header, tab by tab, and some field opens a quote that it does not close."""
        width = seen = odd = size = 0
        stray = False
        for _, line in lines(self.path, max_line=self.max_line):
            if isinstance(line, Fault) or not line.strip():
                continue
            fields = line.split(b"\t")
            width = width or len(fields)
            odd += len(fields) != width
            stray = stray or any(_opens_a_quote(field) for field in fields)
            seen, size = seen + 1, size + len(line)
            if size > 2**20:
                break
        return stray and odd * 100 <= seen

    def _text(self, faults: list[Fault]) -> Iterator[str]:
        """Decoded lines. Bytes that are no UTF-8 pass as lone surrogates: only `parse` knows which record has them."""
        for _, line in lines(self.path, max_line=self.max_line):
            if isinstance(line, Fault):
                faults.append(line)
            else:
                yield line.decode("utf-8", "surrogateescape") + "\n"

    def _header(self, record: list[str] | Fault) -> list[str]:
        if isinstance(record, Fault):
            raise DataError(f"the header cannot be read: {record}")
        names = [name.strip() for name in record]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or "" in names:
            raise DataError(f"{self.name}:1: the header must name each column once; it reads {names}")
        return names

    def _options(self) -> tuple[object, ...]:
        return self.delimiter, self.max_line


def _opens_a_quote(field: bytes) -> bool:
    """Whether a field begins with a quote that does not enclose it."""
    if not field.startswith(b'"'):
        return False
    return len(field) < 2 or not field.endswith(b'"') or b'"' in field[1:-1].replace(b'""', b"")


class ParquetFile(FileSource):
    """A Parquet table, read in batches of rows; whole row groups are skipped by their metadata."""

    def raw(self, start: int = 0) -> Iterator[Raw]:
        file = self._open()
        index = 0
        for group in range(file.metadata.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if index + size <= start:
                index += size
                continue
            batches = file.iter_batches(batch_size=1000, row_groups=[group])
            while True:
                with self._reading():
                    batch = next(batches, None)
                    if batch is None:
                        break
                    skipped = max(0, min(start - index, batch.num_rows))
                    rows = batch.slice(skipped).to_pylist()
                for number, fields in enumerate(rows, index + skipped):
                    yield Raw(number, number + 1, fields)
                index += batch.num_rows

    def parse(self, raw: Raw) -> Row | Fault | None:
        return self._as_row(raw.data, raw.line)

    def _count(self) -> int:
        return int(self._open().metadata.num_rows)

    def _open(self) -> Any:
        try:
            import pyarrow.parquet as pq
        except ImportError:
            raise MissingPartError(f"reading {self.path.name}", "pyarrow", "train") from None
        with self._reading():
            return pq.ParquetFile(self.path)

    def _reading(self) -> AbstractContextManager[None]:
        return reading(f"{self.name} cannot be read as Parquet", "copy or write it again", error=DataError)


def _content(path: Path) -> str:
    """The hash of a file's bytes as they lie on the disk."""
    made = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while piece := file.read(2**20):
                made.update(piece)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return made.hexdigest()


def _paragraphs(path: Path, max_line: int) -> Iterator[tuple[int, bytes | Fault]]:
    """(first line, bytes) of what stands between blank lines."""
    held: list[bytes] = []
    first = 1
    for number, line in lines(path, max_line=max_line):
        if isinstance(line, Fault):
            yield number, line
        elif line.strip():
            first = first if held else number
            held.append(line)
        elif held:
            yield first, b"\n".join(held)
            held = []
    if held:
        yield first, b"\n".join(held)


def _hint(text: str) -> str:
    """A pretty-printed object or an array over several lines is the usual reason why a line is no JSON."""
    return "; each line must be a whole object" if text.strip() in ("{", "[", "}", "]", "},") else ""


def _called(value: object) -> str:
    return {list: "an array", str: "a string", type(None): "null"}.get(type(value), f"a {type(value).__name__}")
