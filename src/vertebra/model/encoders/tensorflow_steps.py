"""What TensorFlow did to an image before a model saw it, without TensorFlow: 8-bit pixels in, 8-bit pixels out.

    tf-lanczos   JPEG there and back, then Lanczos over three pixels to `size`, rounded; an image of `size` stays as it is
    tf-crop      the middle nine tenths of the area, stretched to `size`: bilinear, corner pixels on corner pixels

Robot data sets were resized by the first, and training cut images by the second at random; whoever runs such a model does
both. Sums are made in single precision, as there; results are within one gray level of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from vertebra.model.encoders.jpeg_steps import through_jpeg

AREA = 0.9
"""The share of an image that is kept."""
_RADIUS = 3


def lanczos(image: Image.Image, size: int) -> Image.Image:
    """An image as data sets hold it: as it is where it has `size`, else through JPEG and Lanczos."""
    if image.size == (size, size):
        return image
    pixels = through_jpeg(np.asarray(image)).astype(np.float32)
    tall, wide = (lanczos_weights(length, size) for length in pixels.shape[:2])
    rows = np.tensordot(tall, pixels, (1, 0))
    resized = np.tensordot(wide, rows, (1, 1)).transpose(1, 0, 2)
    return Image.fromarray(np.clip(np.round(resized), 0, 255).astype(np.uint8))


def lanczos_weights(old: int, new: int) -> np.ndarray:
    """[new, old]: how much of each old pixel each new one takes; wider where it shrinks, so that nothing is skipped."""
    inverse = np.float32(1) / (np.float32(new) / np.float32(old))
    stretch = max(inverse, np.float32(1))
    middle = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * inverse
    reach = np.float32(_RADIUS) * stretch
    first = np.clip(np.ceil(middle - reach - np.float32(0.5)), 0, old - 1)
    last = np.clip(np.floor(middle + reach - np.float32(0.5)), 0, old - 1)
    source = np.arange(old, dtype=np.float32)
    weights = _kernel((source[None] + np.float32(0.5) - middle[:, None]) * (np.float32(1) / stretch))
    weights = np.where((source >= first[:, None]) & (source <= last[:, None]), weights, np.float32(0))
    return (weights * (np.float32(1) / weights.sum(1, keepdims=True))).astype(np.float32)


def _kernel(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    pi = np.float32(np.pi)
    safe = np.maximum(x, np.float32(1e-3))
    curve = np.float32(_RADIUS) * np.sin(pi * safe) * np.sin(pi * safe / np.float32(_RADIUS)) / (pi * pi * safe * safe)
    return np.where(x > _RADIUS, np.float32(0), np.where(x <= np.float32(1e-3), np.float32(1), curve))


def middle_of(image: Image.Image, size: int) -> Image.Image:
    """The middle of an image, stretched to `size`."""
    pixels = np.asarray(image, np.uint8).astype(np.float32) * np.float32(1 / 255)
    side = np.sqrt(np.float32(AREA))
    start = (np.float32(1) - side) / np.float32(2)
    (top, bottom, down), (left, right, along) = (
        _places(start, start + side, length, size) for length in pixels.shape[:2]
    )
    along = along[None, :, None]
    above = pixels[top][:, left] + (pixels[top][:, right] - pixels[top][:, left]) * along
    below = pixels[bottom][:, left] + (pixels[bottom][:, right] - pixels[bottom][:, left]) * along
    cut = above + (below - above) * down[:, None, None]
    # as TensorFlow converts: the half keeps whites white, and what is behind the point is dropped
    return Image.fromarray((np.clip(cut, 0, 1) * np.float32(255.5)).astype(np.uint8))


def _places(start: np.float32, stop: np.float32, old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every new pixel of a line the two old ones that it lies between, and how far from the first."""
    last = np.float32(old - 1)
    if new > 1:
        step = (stop - start) * last / np.float32(new - 1)
        at = start * last + np.arange(new, dtype=np.float32) * step
    else:
        at = np.full(1, np.float32(0.5) * (start + stop) * last, np.float32)
    low = np.floor(at)
    return low.astype(np.int64), np.ceil(at).astype(np.int64), at - low


STEPS: dict[str, Callable[[Image.Image, int], Image.Image]] = {"tf-lanczos": lanczos, "tf-crop": middle_of}
"""Steps by the names that a preparation uses."""
