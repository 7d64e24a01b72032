"""Steps of TensorFlow's on images, against the same written pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from vertebra.errors import UnknownNameError
from vertebra.model.encoders.images import Preparation, prepare_image
from vertebra.model.encoders.jpeg_steps import through_jpeg
from vertebra.model.encoders.tensorflow_steps import lanczos, lanczos_weights, middle_of


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Soft fields with some grain, as a camera's are."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    field = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return Image.fromarray(np.clip(field + random.normal(0, 12, field.shape), 0, 255).astype(np.uint8))


def plain_lanczos(pixels: np.ndarray, size: int) -> np.ndarray:
    """Every new pixel as a sum over old ones, rows first, in double precision."""

    def one(line: np.ndarray, at: int) -> np.ndarray:
        step = len(line) / size
        stretch = max(step, 1.0)
        middle = (at + 0.5) * step
        total, value = 0.0, np.zeros(line.shape[1:])
        for source in range(len(line)):
            x = abs((source + 0.5 - middle) / stretch)
            if x > 3:
                continue
            weight = 1.0 if x <= 1e-3 else 3 * math.sin(math.pi * x) * math.sin(math.pi * x / 3) / (math.pi * x) ** 2
            total += weight
            value = value + weight * line[source]
        return value / total

    rows = np.stack([one(pixels, at) for at in range(size)])
    return np.stack([one(rows.transpose(1, 0, 2), at) for at in range(size)]).transpose(1, 0, 2)


@pytest.mark.parametrize(("height", "width"), [(30, 30), (24, 40), (41, 19), (12, 12), (9, 33), (28, 29)])
def test_lanczos(height: int, width: int):
    image = picture(height, width)
    seen = through_jpeg(np.asarray(image)).astype(np.float64)
    expected = np.clip(np.round(plain_lanczos(seen, 28)), 0, 255)
    found = np.asarray(lanczos(image, 28), np.float64)
    assert found.shape == (28, 28, 3)
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.01


@pytest.mark.parametrize(("old", "new"), [(28, 28), (100, 28), (10, 28), (1, 3), (640, 224)])
def test_weights_of_a_pixel_are_one_in_all(old: int, new: int):
    weights = lanczos_weights(old, new)
    assert weights.shape == (new, old)
    assert np.allclose(weights.sum(1), 1, atol=1e-5)
    if old == new:
        assert np.allclose(weights, np.eye(old), atol=1e-6)


def test_an_image_of_the_size_stays_as_it_is():
    image = picture(28, 28)
    assert lanczos(image, 28) is image
    assert lanczos(picture(28, 29), 28).size == (28, 28)


def plain_middle(pixels: np.ndarray, size: int) -> np.ndarray:
    """The middle of the box, corner pixels on corner pixels, one pixel after the other."""
    high, wide = pixels.shape[:2]
    side = math.sqrt(0.9)
    start = (1 - side) / 2
    made = np.zeros((size, size, 3))
    for y in range(size):
        for x in range(size):
            down = (start + y / (size - 1) * side) * (high - 1)
            along = (start + x / (size - 1) * side) * (wide - 1)
            top, left = int(down), int(along)
            dy, dx = down - top, along - left
            for row, weight in ((top, 1 - dy), (min(top + 1, high - 1), dy)):
                for column, share in ((left, 1 - dx), (min(left + 1, wide - 1), dx)):
                    made[y, x] += weight * share * pixels[row, column] / 255
    return np.floor(np.clip(made, 0, 1) * 255.5)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (31, 57), (14, 90)])
def test_the_middle(height: int, width: int):
    image = picture(height, width, seed=2)
    found = np.asarray(middle_of(image, 28), np.float64)
    expected = plain_middle(np.asarray(image, np.float64), 28)
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.01


def test_white_stays_white_and_one_pixel_is_a_color():
    white = Image.new("RGB", (40, 40), (255, 255, 255))
    assert (np.asarray(middle_of(white, 28)) == 255).all()
    assert (np.asarray(lanczos(white, 28)) == 255).all()
    assert np.asarray(middle_of(Image.new("RGB", (1, 1), (7, 8, 9)), 3)).reshape(-1, 3).tolist() == [[7, 8, 9]] * 9
    assert middle_of(picture(20, 20), 1).size == (1, 1)


def test_as_steps_of_a_preparation():
    image = picture(40, 50, seed=3)
    how = Preparation(size=28, first=("tf-lanczos", "tf-crop"))
    expected = np.asarray(middle_of(lanczos(image, 28), 28)).transpose(2, 0, 1)
    assert np.array_equal(prepare_image(image, how), expected)
    assert Preparation(**how.settings()) == how
    assert Preparation(**{**how.settings(), "first": ["tf-lanczos", "tf-crop"]}) == how
    with pytest.raises(UnknownNameError, match="tf-crop"):
        Preparation(size=28, first=("tf-corp",))
