"""JPEG there and back: with the accurate inverse what Pillow decodes, bit for bit; with the fast one near a plain inverse."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from vertebra.model.encoders import jpeg_steps
from vertebra.model.encoders.jpeg_steps import through_jpeg

SIZES = [(1, 1), (2, 3), (4, 4), (5, 5), (7, 9), (8, 8), (15, 6), (16, 16), (17, 33), (24, 40), (31, 64), (40, 18)]


def picture(high: int, wide: int, kind: str) -> np.ndarray:
    random = np.random.default_rng(high * 100 + wide)
    if kind == "noise":
        return random.integers(0, 256, (high, wide, 3), dtype=np.uint8)
    coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((wide, high), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("kind", ["noise", "soft"])
@pytest.mark.parametrize("quality", [95, 75])
def test_what_pillow_decodes(size: tuple[int, int], kind: str, quality: int):
    pixels = picture(*size, kind)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    assert np.array_equal(through_jpeg(pixels, quality, accurate=True), np.asarray(Image.open(stream)))


def plain_inverse(block: np.ndarray) -> np.ndarray:
    """The inverse cosine transform as its formula stands."""

    def scale(k: int) -> float:
        return math.sqrt(0.5) if k == 0 else 1.0

    made = np.zeros((8, 8))
    for y in range(8):
        for x in range(8):
            for v in range(8):
                for u in range(8):
                    waves = math.cos((2 * y + 1) * v * math.pi / 16) * math.cos((2 * x + 1) * u * math.pi / 16)
                    made[y, x] += 0.25 * scale(u) * scale(v) * block[v, u] * waves
    return np.clip(made + 128, 0, 255)


def test_both_inverses_are_near_the_formula():
    random = np.random.default_rng(0)
    steps = jpeg_steps.steps_of(jpeg_steps._LUMA, 95)
    blocks = np.round(random.normal(0, 12, (6, 8, 8))).astype(np.int32)
    expected = np.stack([plain_inverse(block * steps) for block in blocks])
    assert np.abs(jpeg_steps._accurate(blocks * steps) - expected).max() <= 1
    fast = jpeg_steps._fast(blocks, steps)
    assert np.abs(fast - expected).max() <= 8
    assert 0 < np.abs(fast - expected).mean() < 2


def test_what_tensorflow_decodes():
    """Rows that TensorFlow 2.21 gave for these pixels: `tf.io.decode_image(tf.image.encode_jpeg(pixels))`."""
    y, x = np.mgrid[0:16, 0:24]
    pixels = np.stack([x * 11 % 256, (x * y) % 256, (255 - y * 9) % 256], -1).astype(np.uint8)
    found = through_jpeg(pixels)
    assert found[7, :6].tolist() == GOLDEN
    assert not np.array_equal(found, through_jpeg(pixels, accurate=True))
    assert int(found.astype(np.int64).sum()) == TOTAL


GOLDEN: list[list[int]] = [[0, 0, 186], [8, 7, 189], [21, 14, 192], [30, 21, 192], [44, 29, 192], [56, 37, 191]]
TOTAL = 148397
