"""The head of a GGUF file, read with every length checked against the file, before anything else opens it.

    magic  version  #tensors  #facts │ facts: key, type, value … │ tensors: name, shape, type, offset … │ pad │ data

A truncated or damaged file is an error here, with the byte where it stops making sense. It reads no weights and needs
no package; arrays (a vocabulary) are kept as their lengths alone.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from vertebra.errors import CheckpointError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4
_ALIGNMENT = 32


@dataclass(frozen=True, kw_only=True)
class GgufTensor:
    """Where one tensor lies, and how it is stored."""

    name: str
    shape: tuple[int, ...]
    """As torch counts: the fastest dimension last."""
    type: int
    offset: int
    """From the start of the data."""


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """What a GGUF file says of itself."""

    file: Path
    facts: dict[str, Any]
    """Numbers and texts by key; of an array its length."""
    tensors: tuple[GgufTensor, ...]
    data_start: int
    size: int

    @property
    def architecture(self) -> str:
        return str(self.facts["general.architecture"])


class _Reader:
    """A position in the file; whatever would lead beyond the end is an error that names it."""

    def __init__(self, file: Path, data: mmap.mmap) -> None:
        self.file, self.data, self.at = file, data, 0

    def take(self, form: str) -> Any:
        size = struct.calcsize(f"<{form}")
        self.need(size)
        values = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += size
        return values[0]

    def text(self) -> str:
        length = self.take("Q")
        self.need(length)
        raw = self.data[self.at : self.at + length]
        self.at += length
        return raw.decode("utf-8", errors="replace")

    def skip(self, count: int, each: int) -> None:
        self.need(count * each)
        self.at += count * each

    def need(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise CheckpointError(
                f"`{self.file}` is truncated or damaged: at byte {self.at} it announces {size} bytes more, and "
                f"{len(self.data) - self.at} are left; fetch or copy it again"
            )


def looks_like_gguf(file: Path) -> bool:
    """Whether a file is one, by its first bytes or its name."""
    if file.suffix == ".gguf":
        return True
    try:
        with file.open("rb") as stream:
            return stream.read(4) == MAGIC
    except OSError:
        return False


def read_gguf(file: Path) -> GgufHeader:
    """The head of a GGUF file; its tensors are known to lie inside the file."""
    size = file.stat().st_size
    if size < 24:
        raise CheckpointError(f"`{file}` has {size} bytes, too few for a GGUF file; fetch or copy it again")
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(file, data)
        if data[:4] != MAGIC:
            raise CheckpointError(f"`{file}` is no GGUF file: it begins with {data[:4]!r}, not {MAGIC!r}")
        reader.at = 4
        version = reader.take("I")
        if version not in _VERSIONS:
            raise CheckpointError(f"`{file}` is GGUF of version {version}; versions {_VERSIONS} can be read")
        num_tensors, num_facts = reader.take("Q"), reader.take("Q")
        facts: dict[str, Any] = {}
        for _ in range(num_facts):
            key = reader.text()
            facts[key] = _value(reader, reader.take("I"))
        tensors = tuple(_tensor(reader) for _ in range(num_tensors))
        end = reader.at
    if not isinstance(facts.get("general.architecture"), str):
        raise CheckpointError(f"`{file}` names no architecture (`general.architecture`); it holds no language model")
    alignment = facts.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise CheckpointError(f"`{file}` is aligned to {alignment!r}; expected a whole number of bytes")
    start = -(-end // alignment) * alignment
    beyond = [tensor.name for tensor in tensors if start + tensor.offset >= size]
    if not tensors or beyond:
        raise CheckpointError(
            f"`{file}` is truncated: {len(beyond)} of its {len(tensors)} tensors lie beyond its {size} bytes"
            f"{f' ({beyond[0]} first)' if beyond else ''}; fetch or copy it again"
        )
    return GgufHeader(file=file, facts=facts, tensors=tensors, data_start=start, size=size)


def _value(reader: _Reader, kind: int) -> Any:
    if kind in _SCALARS:
        return reader.take(_SCALARS[kind])
    if kind == _STRING:
        return reader.text()
    if kind != _ARRAY:
        raise CheckpointError(
            f"`{reader.file}` holds a value of type {kind} at byte {reader.at}, which is none of GGUF's"
        )
    inner, count = reader.take("I"), reader.take("Q")
    if inner in _SCALARS:
        reader.skip(count, struct.calcsize(f"<{_SCALARS[inner]}"))
    elif inner == _STRING:
        reader.need(8 * count)  # each has a length at least: a count of 10¹² ends here
        for _ in range(count):
            reader.skip(reader.take("Q"), 1)
    else:
        raise CheckpointError(f"`{reader.file}` holds an array of type {inner} at byte {reader.at}; it is damaged")
    return count


def _tensor(reader: _Reader) -> GgufTensor:
    name, dimensions = reader.text(), reader.take("I")
    if dimensions > _MOST_DIMENSIONS:
        raise CheckpointError(f"`{reader.file}`: tensor `{name[:80]}` has {dimensions} dimensions; the file is damaged")
    shape = tuple(reversed([reader.take("Q") for _ in range(dimensions)]))
    return GgufTensor(name=name, shape=shape, type=reader.take("I"), offset=reader.take("Q"))


def check_extents(header: GgufHeader) -> None:
    """Every tensor's bytes lie inside the file; needs the sizes of the quantized types, which `gguf` knows."""
    from gguf.constants import GGML_QUANT_SIZES

    for tensor in header.tensors:
        if tensor.type not in GGML_QUANT_SIZES:
            raise CheckpointError(
                f"`{header.file}`: tensor `{tensor.name}` is of type {tensor.type}, which the installed `gguf` does not know"
            )
        block, width = GGML_QUANT_SIZES[tensor.type]
        end = header.data_start + tensor.offset + prod(tensor.shape) // block * width
        if end > header.size:
            raise CheckpointError(
                f"`{header.file}` is truncated: tensor `{tensor.name}` ends at byte {end}, and the file has {header.size}; "
                "fetch or copy it again"
            )
