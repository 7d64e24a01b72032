"""Numbers as somebody hands them over, as arrays in 64 bits; what is no number is an error that says where it stands."""

from __future__ import annotations

from typing import Any

import numpy as np

from vertebra.errors import DataError


def require_numbers(given: Any, what: str) -> np.ndarray:
    """A new array of 64-bit floats; NaN, infinity, text and booleans are refused."""
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "fiu" and str(array.dtype) != "bfloat16":
            raise TypeError(f"they are {array.dtype}")
        numbers = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} must be numbers, in lists of one length ({error})") from error
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        places = [list(map(int, place)) for place in np.argwhere(wrong)[:4]]
        raise DataError(f"{what}: {int(wrong.sum())} of {numbers.size} are NaN or infinite, the first at {places}")
    return numbers


def require_dims(array: np.ndarray, dims: int | None, what: str) -> None:
    """The last axis is the dimensions."""
    if dims is not None and array.shape[-1:] != (dims,):
        have = array.shape[-1] if array.ndim else "no"
        raise DataError(f"{what} have {have} dimensions (shape {array.shape}); expected {dims}")


def like(result: np.ndarray, given: Any) -> np.ndarray:
    """The result in the type that came, where that was one of floats; else in 64 bits."""
    dtype = getattr(given, "dtype", None)
    kept = isinstance(dtype, np.dtype) and (dtype.kind == "f" or str(dtype) == "bfloat16")
    return result.astype(dtype) if kept else result
