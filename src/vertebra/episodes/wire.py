"""TFRecord files and the `tf.train.Example`s in them, read plainly: no TensorFlow, no protobuf.

    record   [length: 8 bytes][masked CRC-32C of it: 4][data: length][masked CRC-32C of the data: 4]
    Example  { features: { feature: map<name, bytes_list | float_list | int64_list> } }

Both checksums are verified. What a feature means is not known here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from vertebra.errors import DataError
from vertebra.protobuf import BYTES, FIXED32, VARINT, fields, packed, signed

Feature = list[bytes] | np.ndarray
MOST = 1 << 31
"""Bytes of one record; TensorFlow writes none larger."""
MASK = 0xA282EAD8
LANES = 256
"""Parts of a record whose checksums are counted side by side."""


def records(path: Path) -> Iterator[bytes]:
    """The data of each record of a file."""
    number = 0
    with open(path, "rb") as file:
        while head := file.read(12):
            where = f"`{path}`, record {number},"
            if len(head) < 12:
                raise DataError(f"{where} is cut off; fetch or copy the file again")
            length = struct.unpack("<Q", head[:8])[0]
            if masked_crc(head[:8]) != struct.unpack("<I", head[8:])[0] or length > MOST:
                raise DataError(f"{where} has a length that its checksum denies; it is damaged, or no TFRecord")
            data, tail = file.read(length), file.read(4)
            if len(data) < length or len(tail) < 4:
                raise DataError(f"{where} is cut off; fetch or copy the file again")
            if masked_crc(data) != struct.unpack("<I", tail)[0]:
                raise DataError(f"{where} is damaged: its checksum is another one; fetch or copy the file again")
            yield data
            number += 1


def example(data: bytes, where: str = "a record") -> dict[str, Feature]:
    """The features of a `tf.train.Example`, by name."""
    found: dict[str, Feature] = {}
    try:
        for features in _messages(data, 1):
            for entry in _messages(features, 1):
                name = b"".join(_messages(entry, 1)).decode()
                for feature in _messages(entry, 2):
                    found[name] = _feature(feature)
    except (IndexError, ValueError, struct.error) as error:
        raise DataError(
            f"{where} is no tf.train.Example ({error}); SequenceExamples and others are not read"
        ) from error
    return found


def masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecord stores it."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + MASK) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC: of many equal parts side by side, joined by what a part's length of zeros does to a checksum."""
    size = len(data) // LANES
    crc, done = 0xFFFFFFFF, 0
    if size >= 16:
        table = np.array(_table(), np.uint32)
        lanes = np.frombuffer(data, np.uint8, LANES * size).reshape(LANES, size).T
        parts = np.zeros(LANES, np.uint32)
        for column in lanes:
            parts = table[(parts ^ column) & 0xFF] ^ (parts >> 8)
        shift = _behind_zeros(size)
        for part in parts.tolist():
            crc = (
                shift[0][crc & 255] ^ shift[1][crc >> 8 & 255] ^ shift[2][crc >> 16 & 255] ^ shift[3][crc >> 24] ^ part
            )
        done = LANES * size
    steps = _table()
    for byte in data[done:]:
        crc = steps[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> list[int]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        found.append(byte)
    return found


def _behind_zeros(size: int) -> list[list[int]]:
    """What so many zeros behind it make of each byte of a checksum: a linear map, squared and multiplied up."""
    table = _table()
    one = [table[1 << bit] if bit < 8 else 1 << (bit - 8) for bit in range(32)]  # of one zero
    found = [1 << bit for bit in range(32)]
    while size:
        if size & 1:
            found = [_applied(one, value) for value in found]
        one = [_applied(one, value) for value in one]
        size >>= 1
    return [[_applied(found, byte << (8 * at)) for byte in range(256)] for at in range(4)]


def _applied(columns: list[int], value: int) -> int:
    found = 0
    while value:
        low = value & -value
        found ^= columns[low.bit_length() - 1]
        value ^= low
    return found


def _feature(data: bytes) -> Feature:
    for field, kind, value in fields(data):
        if kind != BYTES or not isinstance(value, bytes):
            raise ValueError(f"a feature has the wire type {kind}")
        if field == 1:
            return _messages(value, 1)
        if field == 2:
            return np.concatenate([np.zeros(0, np.float32), *_floats(value)])
        if field == 3:
            return np.array([one for part in _integers(value) for one in part], np.int64)
    return []


def _floats(data: bytes) -> Iterator[np.ndarray]:
    """Packed, or one after the other."""
    for field, kind, value in fields(data):
        if field == 1 and kind in (BYTES, FIXED32):
            yield np.frombuffer(value, "<f4")  # type: ignore[arg-type]


def _integers(data: bytes) -> Iterator[list[int]]:
    for field, kind, value in fields(data):
        if field == 1 and kind in (VARINT, BYTES):
            yield [signed(one) for one in ([value] if isinstance(value, int) else packed(value))]


def _messages(data: bytes, number: int) -> list[bytes]:
    """Every entry of a field that has a length."""
    return [value for field, kind, value in fields(data) if field == number and kind == BYTES]  # type: ignore[misc]
