"""Files as bytes, plain or compressed by gzip or zstd, and their lines in bounded memory.

A line that is longer than the limit is skipped to its end without being held, and reported as a fault; so is a compressed
stream that breaks off. Knows nothing of what a line means.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from vertebra.data.read.rows import Fault, Raw
from vertebra.errors import DataError, MissingPartError

COMPRESSED = (".gz", ".zst", ".zstd")

MAX_LINE = 64 * 2**20
"""A line longer than this many bytes is a fault: most likely the file is not made of lines at all."""


def inner_suffix(path: Path) -> str:
    """The suffix that says what the file holds: `.jsonl` for `train.jsonl.gz`."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() in COMPRESSED else path.suffix.lower()


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, decompressed by its suffix."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".gz":
            return cast(BinaryIO, gzip.open(path, "rb"))
        if suffix in (".zst", ".zstd"):
            return _open_zstd(path)
        return open(path, "rb", buffering=2**20)
    except OSError as error:
        raise DataError(f"cannot open {path}: {error.strerror or error}") from error


def lines(path: Path, *, max_line: int = MAX_LINE) -> Iterator[tuple[int, bytes | Fault]]:
    """(line number from 1, the line without its end), or the fault that stands in its place."""
    number = 0
    with open_bytes(path) as file:
        try:
            while True:
                line = file.readline(max_line + 1)
                if not line:
                    return
                number += 1
                if len(line) > max_line and not line.endswith(b"\n"):
                    size = len(line) + _skip_line(file)
                    message = f"line too long: {size:,} bytes, the limit is {max_line:,}; is this a file of lines?"
                    yield number, Fault(str(path), number, message)
                else:
                    if number == 1:
                        line = line.removeprefix(b"\xef\xbb\xbf")
                    yield number, line.rstrip(b"\r\n")
        except (EOFError, zlib.error, OSError) as error:
            yield number + 1, Fault(str(path), number + 1, f"the file breaks off or is damaged: {error}")


def raw_lines(path: Path, start: int, max_line: int) -> Iterator[Raw]:
    """`lines` as units, from unit `start` on."""
    for number, line in lines(path, max_line=max_line):
        if number > start:
            yield Raw(number - 1, number, line)


def read_text(path: Path) -> str | Fault:
    """A whole file as text, or the fault that prevents it."""
    try:
        with open_bytes(path) as file:
            return decoded(file.read().removeprefix(b"\xef\xbb\xbf"), str(path), 1)
    except (EOFError, zlib.error, OSError) as error:
        return Fault(str(path), 0, f"the file breaks off or is damaged: {error}")


def decoded(data: bytes, file: str, line: int) -> str | Fault:
    """The text of some bytes; what is no UTF-8 is a fault that names the line and the byte."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        return Fault(file, line, f"invalid UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}")


def _skip_line(file: BinaryIO) -> int:
    """Read to the end of the line, holding none of it; how many bytes that were."""
    skipped = 0
    while piece := file.readline(2**20):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _open_zstd(path: Path) -> BinaryIO:
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingPartError(f"reading {path.name} (zstd)", "pyarrow", "train") from None
    stream = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), 2**20))
