"""The codec beside the real ones: msgpack's own, openpi's, vla-eval's, json_numpy's; and everything that it refuses."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vertebra.errors import DataError
from vertebra.wire import Bounds, from_json, pack, to_json, unpack

msgpack = pytest.importorskip("msgpack")
json_numpy = pytest.importorskip("json_numpy")

_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
    max_leaves=20,
)
_ARRAYS = hnp.arrays(
    st.sampled_from(["<f4", "<f8", "|u1", "<i8", "|b1", "<f2"]), hnp.array_shapes(min_dims=0, min_side=0)
)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@given(_PLAIN)
def test_plain_values_are_those_of_msgpack(value):
    assert unpack(msgpack.packb(value)) == value
    assert msgpack.unpackb(pack(value)) == value


@pytest.mark.parametrize("size", [0, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_every_length_of_every_kind(size):
    for value in ("a" * size, b"a" * size, [1] * size, {str(n): n for n in range(size)}):
        assert unpack(msgpack.packb(value)) == value
        assert msgpack.unpackb(pack(value)) == value


@pytest.mark.parametrize(
    "number", [-33, -32, -1, 0, 127, 128, 255, 256, 65535, 65536, -129, -32769, 2**32, -(2**31) - 1]
)
def test_every_size_of_a_number(number):
    assert unpack(msgpack.packb(number)) == number
    assert msgpack.unpackb(pack(number)) == number
    assert unpack(msgpack.packb(0.5, use_single_float=True)) == 0.5


@given(_ARRAYS)
def test_arrays_are_openpis_and_vla_evals_and_json_numpys(array):
    theirs = pytest.importorskip("openpi_client.msgpack_numpy")
    assert same(unpack(theirs.packb({"a": array}))["a"], array)
    assert same(theirs.unpackb(pack({"a": array}))["a"], array)
    evals = pytest.importorskip("vla_eval.protocol.numpy_codec")
    assert same(msgpack.unpackb(pack(array, keys=str), object_hook=evals.decode_ndarray), array)
    assert same(np.asarray(from_json(json_numpy.dumps(array))), array)
    assert same(np.asarray(json_numpy.loads(to_json(array))), array)


def test_a_number_of_numpys_comes_back():
    theirs = pytest.importorskip("openpi_client.msgpack_numpy")
    found = unpack(theirs.packb(np.float32(1.5)))
    assert found == 1.5
    assert found.dtype == np.float32
    assert unpack(pack(np.int64(3))) == 3


def test_arrays_own_their_memory():
    found = unpack(pack(np.zeros(3)))
    found[0] = 1  # theirs are read-only
    assert found[0] == 1


@pytest.mark.parametrize(
    "dtype", ["|O", "O", "object", "|V4", "<U4", "|S3", "<c8", "<M8[s]", "x", "", "f4,f4", 4, None, [["a", "<f4"]]]
)
def test_other_kinds_of_arrays_are_refused(dtype):
    with pytest.raises(DataError, match="dtype"):
        unpack(msgpack.packb({"__ndarray__": True, "data": b"\0" * 8, "dtype": dtype, "shape": [2]}))
    with pytest.raises(DataError, match="dtype"):
        from_json(json.dumps({"__numpy__": "AAAAAAAAAAA=", "dtype": dtype, "shape": [2]}))


@pytest.mark.parametrize("shape", [[3], [-1], [2, -2], [2.0], "2", None, [True], [1] * 9, [1 << 40, 1 << 40]])
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises(DataError, match="shape"):
        unpack(msgpack.packb({b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<f4", b"shape": shape}))


def test_arrays_of_objects_are_not_sent():
    for array in (np.array([object()]), np.array(["a"]), np.array([1j])):
        with pytest.raises(DataError, match="cannot be sent"):
            pack(array)
        with pytest.raises(DataError, match="cannot be sent"):
            to_json(array)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    for read in (unpack, from_json):
        with contextlib.suppress(DataError):
            read(data)


def test_every_cut_of_a_message_is_refused():
    whole = pack({"image": np.zeros((2, 2), np.uint8), "prompt": "go", "n": [1.5, -7, 300, None]})
    for length in range(len(whole)):
        with pytest.raises(DataError):
            unpack(whole[:length])
    with pytest.raises(DataError, match="follow behind"):
        unpack(whole + b"\0")


def test_bounds_hold_while_a_message_is_read():
    with pytest.raises(DataError, match="values"):
        unpack(b"\xdd\xff\xff\xff\xff")  # a list of four billion values in five bytes
    with pytest.raises(DataError, match="values"):
        unpack(b"\x91" * 33 + b"\xc0")
    assert unpack(b"\x91" * 32 + b"\xc0")
    with pytest.raises(DataError, match="bytes"):
        unpack(pack(b"a" * 100), Bounds(size=100))
    with pytest.raises(DataError, match="bytes"):
        from_json('"' + "a" * 100 + '"', Bounds(size=101))
    with pytest.raises(DataError, match="values"):
        from_json("[" + "1," * 11 + "1]", Bounds(items=10))
    with pytest.raises(DataError, match="nested"):
        from_json("[" * 200_000)


def test_extensions_keys_and_what_holds_itself_are_refused():
    with pytest.raises(DataError, match="extensions"):
        unpack(msgpack.packb(msgpack.ExtType(5, b"x")))
    with pytest.raises(DataError, match="key"):
        unpack(msgpack.packb({1: 2}))
    ring: list = []
    ring.append(ring)
    with pytest.raises(DataError, match="nested"):
        pack(ring)
    with pytest.raises(DataError, match="64 bits"):
        pack(1 << 70)
