"""Fields of messages as a plain writer writes them; what is cut off or of no known type is an error."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra.protobuf import BYTES, FIXED32, FIXED64, VARINT, fields, packed, signed, varint

U64 = st.integers(0, 2**64 - 1)
VALUES = st.one_of(
    st.tuples(st.just(VARINT), U64),
    st.tuples(st.just(BYTES), st.binary(max_size=200)),
    st.tuples(st.just(FIXED32), st.binary(min_size=4, max_size=4)),
    st.tuples(st.just(FIXED64), st.binary(min_size=8, max_size=8)),
)


def number(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last have their highest bit set."""
    parts = [value >> at & 0x7F for at in range(0, max(value.bit_length(), 1), 7)]
    return bytes([part | 0x80 for part in parts[:-1]] + parts[-1:])


def written(message: list[tuple[int, tuple[int, int | bytes]]]) -> bytes:
    data = b""
    for key, (kind, value) in message:
        data += number(key << 3 | kind)
        data += number(value) if isinstance(value, int) else (number(len(value)) if kind == BYTES else b"") + value
    return data


@given(st.lists(st.tuples(st.integers(1, 2**20), VALUES), max_size=8))
def test_every_field_comes_back(message):
    data = written(message)
    expected = [(key, kind, value) for key, (kind, value) in message]
    assert list(fields(data)) == expected
    assert [(k, w, v if isinstance(v, int) else bytes(v)) for k, w, v in fields(memoryview(data))] == expected


@given(st.lists(U64, max_size=20))
def test_packed_numbers(values):
    assert packed(b"".join(map(number, values))) == values


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_below_zero(value):
    assert signed(varint(number(value % 2**64), 0)[0]) == value
    assert signed(struct.unpack("<Q", struct.pack("<q", value))[0]) == value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (number(1 << 3 | BYTES) + number(5) + b"four", "longer than what is left"),
        (number(2 << 3 | FIXED64) + b"seven !"[:7], "longer than what is left"),
        (number(1 << 3 | 3), "field 1 at byte 1 has the wire type 3"),
        (number(1 << 3) + b"\xff" * 11, "more than 64 bits"),
    ],
)
def test_what_is_damaged(data: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        list(fields(data))


def test_a_number_that_is_cut_off():
    with pytest.raises(IndexError):
        list(fields(number(1 << 3) + b"\xff"))
