from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vertebra.simulate.pixels import RENDERED, reduced, rendered_size


def plain(image: np.ndarray, size: int) -> np.ndarray:
    """The same, a pixel at a time, in whole numbers."""
    factor = len(image) // size
    out = np.empty((size, size, 3), np.uint8)
    for row in range(size):
        for column in range(size):
            for channel in range(3):
                block = image[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor, channel]
                out[row, column, channel] = (2 * int(block.astype(int).sum()) + factor**2) // (2 * factor**2)
    return out


@given(size=st.integers(1, 9), factor=st.integers(1, 7), seed=st.integers(0, 1 << 30))
def test_a_pixel_is_the_mean_of_its_block(size: int, factor: int, seed: int):
    image = np.random.default_rng(seed).integers(0, 256, (size * factor, size * factor, 3), dtype=np.uint8)
    made = reduced(image, size)
    assert (made == plain(image, size)).all()
    box = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX))
    assert np.abs(made.astype(int) - box).max() <= 1  # Pillow rounds twice, rows and columns


def test_no_sum_overflows():
    assert (reduced(np.full((512, 512, 3), 255, np.uint8), 16) == 255).all()


@pytest.mark.parametrize("size", [16, 63, 64, 65, 96, 97, 128, 192, 224, 512])
def test_images_are_drawn_in_whole_blocks_and_not_smaller_than_asked(size: int):
    side = rendered_size(size)
    assert side % size == 0
    assert size <= side <= 512
    assert side + size > RENDERED  # one block more would be more than is needed
