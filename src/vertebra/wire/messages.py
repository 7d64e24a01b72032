"""msgpack, as the clients of robots use it: plain values, bytes, and arrays. Extensions are refused, sizes are bounded.

It is written here, and not taken from a package, so that a client needs numpy alone, and so that the number of values is
bounded while a message is read. Images dominate such messages, and they are one slice each.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from vertebra.errors import DataError
from vertebra.wire.arrays import checked, from_mapping
from vertebra.wire.bounds import Bounds

_FIXED = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_SIZED = {
    0xC4: ">B",
    0xC5: ">H",
    0xC6: ">I",
    0xD9: ">B",
    0xDA: ">H",
    0xDB: ">I",
    0xDC: ">H",
    0xDD: ">I",
    0xDE: ">H",
    0xDF: ">I",
}
_PLAIN = {0xC0: None, 0xC2: False, 0xC3: True}


def unpack(data: bytes, bounds: Bounds | None = None) -> Any:
    """The value of a message; what is left over, cut off or beyond the bounds is an error."""
    return _Reader(data, bounds or Bounds()).whole()


class _Reader:
    def __init__(self, data: bytes, bounds: Bounds) -> None:
        if len(data) > bounds.size:
            raise DataError(f"the message has {len(data):,} bytes; expected at most {bounds.size:,}")
        self.data, self.at, self.left, self.bounds = memoryview(data), 0, bounds.items, bounds

    def whole(self) -> Any:
        value = self.value(0)
        if self.at != len(self.data):
            raise DataError(f"{len(self.data) - self.at:,} bytes follow behind the end of the message")
        return value

    def take(self, count: int) -> memoryview:
        if self.at + count > len(self.data):
            raise DataError("the message ends in the middle of a value")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self, depth: int) -> Any:
        mark = self.take(1)[0]
        if mark < 0x80:
            return mark
        if mark >= 0xE0:
            return mark - 0x100
        if mark in _PLAIN:
            return _PLAIN[mark]
        if mark in _FIXED:
            return self.number(_FIXED[mark])
        if mark < 0x90:
            return self.mapping(mark & 0x0F, depth)
        if mark < 0xA0:
            return self.sequence(mark & 0x0F, depth)
        if mark < 0xC0:
            return self.text(mark & 0x1F)
        if mark not in _SIZED:
            raise DataError(f"the message holds something of the type 0x{mark:02x}; extensions are not read")
        size = self.number(_SIZED[mark])
        if mark <= 0xC6:
            return bytes(self.take(size))
        if mark <= 0xDB:
            return self.text(size)
        return self.sequence(size, depth) if mark <= 0xDD else self.mapping(size, depth)

    def text(self, size: int) -> str:
        try:
            return str(self.take(size), "utf-8")
        except UnicodeDecodeError:
            raise DataError("the message holds text that is no UTF-8") from None

    def spend(self, count: int, depth: int) -> None:
        self.left -= count
        if self.left < 0 or depth >= self.bounds.depth:
            raise DataError(
                f"the message holds more than {self.bounds.items:,} values, or lists nested more than "
                f"{self.bounds.depth} deep"
            )

    def sequence(self, count: int, depth: int) -> list[Any]:
        self.spend(count, depth)
        return [self.value(depth + 1) for _ in range(count)]

    def mapping(self, count: int, depth: int) -> Any:
        self.spend(2 * count, depth)
        made: dict[str | bytes, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str | bytes):
                raise DataError(f"a mapping has the key {key!r:.40}; expected text or bytes")
            made[key] = self.value(depth + 1)
        return from_mapping(made)


def pack(value: Any, *, keys: type[str] | type[bytes] = bytes) -> bytes:
    """The message of a value. `keys` of arrays: bytes for openpi and starVLA, text for vla-eval."""
    parts: list[bytes] = []
    _write(value, parts, keys, 0)
    return b"".join(parts)


def _write(value: Any, parts: list[bytes], keys: type[str] | type[bytes], depth: int) -> None:
    if depth > Bounds().depth:
        raise DataError("what is to be sent is nested too deeply, or holds itself")
    if value is None or isinstance(value, bool):
        parts.append(b"\xc0" if value is None else b"\xc3" if value else b"\xc2")
    elif isinstance(value, np.ndarray):
        array = checked(value)
        entries = {"__ndarray__": True, "data": array.tobytes(), "dtype": array.dtype.str, "shape": list(array.shape)}
        named = {name if keys is str else name.encode(): entry for name, entry in entries.items()}
        _write(named, parts, keys, depth)
    elif isinstance(value, np.generic):
        _write(checked(value).item(), parts, keys, depth)
    elif isinstance(value, int):
        parts.append(_integer(value))
    elif isinstance(value, float):
        parts.append(struct.pack(">Bd", 0xCB, value))
    elif isinstance(value, str):
        data = value.encode()
        parts.append(_head(len(data), 0xA0, 32, (0xD9, 0xDA, 0xDB)) + data)
    elif isinstance(value, bytes | bytearray | memoryview):
        parts.append(_head(len(value), 0, 0, (0xC4, 0xC5, 0xC6)))
        parts.append(bytes(value))
    elif isinstance(value, list | tuple):
        parts.append(_head(len(value), 0x90, 16, (None, 0xDC, 0xDD)))
        for one in value:
            _write(one, parts, keys, depth + 1)
    elif isinstance(value, Mapping):
        parts.append(_head(len(value), 0x80, 16, (None, 0xDE, 0xDF)))
        for key, one in value.items():
            if not isinstance(key, str | bytes):
                raise DataError(f"a mapping has the key {key!r:.40}; expected text or bytes")
            _write(key, parts, keys, depth + 1)
            _write(one, parts, keys, depth + 1)
    else:
        raise DataError(f"a {type(value).__name__} cannot be sent; expected plain values, bytes or arrays")


def _head(size: int, short: int, below: int, marks: tuple[int | None, int, int]) -> bytes:
    """The mark and the length of something."""
    if size < below:
        return bytes([short | size])
    if size < 1 << 8 and marks[0] is not None:
        return struct.pack(">BB", marks[0], size)
    return struct.pack(">BH", marks[1], size) if size < 1 << 16 else struct.pack(">BI", marks[2], size)


def _integer(value: int) -> bytes:
    if -32 <= value < 128:
        return struct.pack(">b", value)
    for mark, form, low, high in (
        (0xD3, ">Bq", -(1 << 63), 1 << 63),
        (0xCF, ">BQ", 0, 1 << 64),
    ):
        if low <= value < high:
            return struct.pack(form, mark, value)
    raise DataError(f"{value} has more than 64 bits")
