"""Protobuf by its wire format alone: the fields of a message one after the other, so that no package is needed to read one.

Lengths are checked against the message that holds them; what does not fit raises `ValueError` or `IndexError`, which a
reader turns into an error of its own. It knows no message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types: how a value is written."""
_FIXED = {FIXED64: 8, FIXED32: 4}

Data = TypeVar("Data", bytes, memoryview)


def fields(data: Data) -> Iterator[tuple[int, int, int | Data]]:
    """(number, wire type, value) of each field: an int, or bytes where a length or a float is written."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = varint(data, at)
            yield number, kind, value
            continue
        size = _FIXED.get(kind, -1)
        if kind == BYTES:
            size, at = varint(data, at)
        if size < 0:
            raise ValueError(f"field {number} at byte {at} has the wire type {kind}")
        if at + size > len(data):
            raise ValueError(f"field {number} at byte {at} is longer than what is left")
        yield number, kind, data[at : at + size]
        at += size


def varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next field begins."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def packed(data: bytes | memoryview) -> list[int]:
    """Numbers one after the other in a field that has a length."""
    found, at = [], 0
    while at < len(data):
        number, at = varint(data, at)
        found.append(number)
    return found


def signed(value: int) -> int:
    """A number of 64 bits that may be below zero."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
