"""Images made smaller by whole factors, exactly: a pixel is the mean of its block, halves rounded up."""

from __future__ import annotations

import numpy as np

RENDERED = 192
"""Pixels of a side that are rendered at least: the cost is in the geometry, and the mean of a block has no jagged edges."""


def rendered_size(size: int) -> int:
    """The side to render at, so that whole blocks become `size` pixels."""
    return size * max(1, RENDERED // size)


def reduced(image: np.ndarray, size: int) -> np.ndarray:
    """[S, S, 3] → [size, size, 3], of 8-bit pixels; S is a multiple of `size`."""
    factor, rest = divmod(image.shape[0], size)
    assert rest == 0, "rendered_size gives whole blocks"
    if factor == 1:
        return np.ascontiguousarray(image)
    rows = image.reshape(size, factor, size * factor, 3).sum(1, dtype=np.uint32)
    sums = rows.reshape(size, size, factor, 3).sum(2)
    area = factor * factor
    return ((sums + area // 2) // area).astype(np.uint8)
