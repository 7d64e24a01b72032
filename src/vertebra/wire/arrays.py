"""Arrays as plain data: json_numpy's form for JSON, openpi's and vla-eval's for msgpack.

    {"__numpy__": base64, "dtype": "<f4", "shape": [2, 3]}                json_numpy (OpenVLA, OFT)
    {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": …}  openpi, starVLA; vla-eval with text as keys
    {b"__npgeneric__": True, b"data": 1.5, b"dtype": "<f4"}               one number
    {"__ndarray_class__": True, "as_npy": bytes}                          GR00T: the bytes of a .npy file
    {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": …, b"data": …}  msgpack-numpy: newer GR00T
    {"__image__": True, "format": "png", "data": bytes}                   vla-eval: the bytes of a file, or raw pixels

Numbers and booleans alone: an array of objects, of structures or of text is refused in both directions.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vertebra.errors import DataError

KINDS = "biuf"
"""Kinds of numbers that travel: booleans, integers, floats."""
_NAME = re.compile(r"[<>=|]?[a-z]{1,8}[0-9]{0,3}")
_AXES = 8


def array_of(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    """An array of its own memory, from its bytes in C order; everything is checked before anything is made."""
    if isinstance(data, str):
        try:
            data = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise DataError("the data of an array are no base64") from None
    if not isinstance(data, bytes | bytearray | memoryview):
        raise DataError(f"the data of an array are a {type(data).__name__}; expected bytes")
    kind = _dtype(dtype)
    axes = _shape(shape)
    expected = math.prod(axes) * kind.itemsize
    if expected != len(data):
        raise DataError(f"an array of the shape {axes} and {kind} takes {expected:,} bytes; {len(data):,} came")
    return np.frombuffer(data, kind).reshape(axes).copy()


def from_npy(data: Any) -> np.ndarray:
    """The array of a .npy file. Its head is read here, for numpy would take the memory that a head claims."""
    if not isinstance(data, bytes):
        raise DataError(f"the file of an array is a {type(data).__name__}; expected bytes")
    file = io.BytesIO(data)
    try:
        heads = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, kind = heads[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError, EOFError, SyntaxError) as error:  # whatever is wrong with a damaged head
        raise DataError(f"an array is no .npy file of the versions 1 or 2 ({error})"[:200]) from None
    if not fortran:
        return array_of(data[file.tell() :], kind.str, shape)
    return np.ascontiguousarray(array_of(data[file.tell() :], kind.str, shape[::-1]).T)


def to_npy(array: np.ndarray) -> dict[str, Any]:
    """GR00T's form of an array."""
    file = io.BytesIO()
    np.save(file, checked(array), allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def to_nd(array: np.ndarray) -> dict[bytes, Any]:
    """msgpack-numpy's form of an array."""
    array = checked(array)
    head = {b"nd": True, b"type": array.dtype.str, b"kind": b"", b"shape": list(array.shape)}
    return {**head, b"data": array.tobytes()}


def _dtype(given: Any) -> np.dtype:
    name = given.decode("ascii", "replace") if isinstance(given, bytes) else given
    if isinstance(name, str) and _NAME.fullmatch(name):
        try:
            found = np.dtype(name)
        except TypeError:
            found = None
        if found is not None and found.kind in KINDS:
            return found
    raise DataError(f"an array has the dtype {name!r:.60}; expected numbers or booleans, as in '<f4' or '|u1'")


def _shape(given: Any) -> tuple[int, ...]:
    fits = isinstance(given, list | tuple) and len(given) <= _AXES
    if not fits or not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in given):
        raise DataError(f"an array has the shape {given!r:.60}; expected up to {_AXES} whole numbers from 0 on")
    return tuple(given)


def checked(array: Any) -> np.ndarray:
    """An array or a number of numpy's that may be sent."""
    if array.dtype.kind not in KINDS:
        raise DataError(f"an array of {array.dtype} cannot be sent; expected numbers or booleans")
    return np.ascontiguousarray(array).reshape(np.shape(array))  # the first makes axes where there are none


def to_object(array: np.ndarray) -> dict[str, Any]:
    """json_numpy's form."""
    array = checked(array)
    data = base64.b64encode(array.tobytes()).decode("ascii")
    return {"__numpy__": data, "dtype": array.dtype.str, "shape": list(array.shape)}


def from_object(given: dict[str, Any]) -> Any:
    """A mapping of JSON, or the array that it stands for."""
    if "__numpy__" not in given:
        return given
    found = array_of(given["__numpy__"], given.get("dtype"), given.get("shape"))
    return found[()] if found.ndim == 0 else found


def from_mapping(given: Mapping[Any, Any]) -> Any:
    """A mapping of msgpack, or what it stands for; keys are bytes or text."""

    def entry(name: str) -> Any:
        return given.get(name, given.get(name.encode()))

    if entry("__ndarray__"):
        return array_of(entry("data"), entry("dtype"), entry("shape"))
    if entry("__npgeneric__"):
        value = entry("data")
        if not isinstance(value, int | float):
            raise DataError(f"a number of numpy's is a {type(value).__name__}; expected a number")
        try:
            return _dtype(entry("dtype")).type(value)
        except (OverflowError, ValueError):
            raise DataError(f"{value!r:.40} does not fit into {entry('dtype')!r:.40}") from None
    if entry("__ndarray_class__"):
        return from_npy(entry("as_npy"))
    if entry("nd") is True and entry("type") is not None:
        return array_of(entry("data"), entry("type"), entry("shape"))
    if entry("__image__"):
        if entry("format") == "raw":
            return array_of(entry("data"), entry("dtype"), entry("shape"))
        if not isinstance(entry("data"), bytes):
            raise DataError("an image holds no bytes; expected those of a PNG or JPEG file")
        return entry("data")
    return given
