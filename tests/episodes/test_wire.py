"""TFRecord and tf.train.Example from hand-made bytes, and checksums beside the plain way of counting them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.episodes.wire import crc32c, example, masked_crc, records
from vertebra.errors import DataError


def plain_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example_of(features: dict[str, object], *, packed: bool = True) -> bytes:
    entries = b""
    for name, value in features.items():
        if isinstance(value, list):
            feature = field(1, b"".join(field(1, one) for one in value))
        elif np.asarray(value).dtype.kind == "f":
            rows = np.asarray(value, "<f4").reshape(-1)
            singles = b"".join(varint(1 << 3 | 5) + one.tobytes() for one in rows)
            feature = field(2, field(1, rows.tobytes()) if packed else singles)
        else:
            numbers = [varint(int(one)) for one in np.asarray(value).reshape(-1)]
            feature = field(
                3, field(1, b"".join(numbers)) if packed else b"".join(varint(1 << 3) + one for one in numbers)
            )
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def record_of(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked_crc(head)) + data + struct.pack("<I", masked_crc(data))


def test_the_checksum_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0


@settings(max_examples=12)
@given(st.integers(0, 3), st.sampled_from([0, 1, 4095, 4096, 4097, 8191, 8192, 12345]))
def test_the_quick_checksum_is_the_plain_one(seed: int, size: int):
    data = np.random.default_rng(seed).bytes(size)
    assert crc32c(data) == plain_crc(data)


@pytest.mark.parametrize("packed", [True, False])
def test_an_example_is_read(packed: bool):
    features = {"texts": [b"a", b"", b"\xff" * 300], "floats": [0.5], "n": 0}
    features["floats"], features["n"] = np.array([0.5, -1e9, 3], "f4"), np.array([0, -1, 1 << 40])  # type: ignore[assignment]
    found = example(example_of(features, packed=packed))
    assert found["texts"] == features["texts"]
    np.testing.assert_array_equal(found["floats"], features["floats"])
    np.testing.assert_array_equal(found["n"], features["n"])
    assert example(b"") == {}


def test_records_one_after_the_other(tmp_path: Path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"".join(map(record_of, [b"one", b"", b"x" * 10_000])))
    assert list(records(path)) == [b"one", b"", b"x" * 10_000]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-1], "record 1, is cut off"),
        (lambda data: data[:20], "record 1, is cut off"),
        (lambda data: data[:-6] + b"?" + data[-5:], "record 1, is damaged"),
        (lambda data: b"\x04" + data[1:], "record 0, has a length that its checksum denies"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: object, words: str):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(damage(record_of(b"one") + record_of(b"twenty")))  # type: ignore[operator]
    with pytest.raises(DataError, match=words):
        list(records(path))


@pytest.mark.parametrize("data", [b"\x0a\xff", b"\x0b", b"\x0a\x05ab", field(1, field(1, field(2, b"\x09\x00")))])
def test_what_is_no_example(data: bytes):
    with pytest.raises(DataError, match=r"is no tf\.train\.Example"):
        example(data)
