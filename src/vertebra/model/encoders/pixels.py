"""What an image encoder is given: pixels [M, 3, H, W], 8-bit or scaled to 0..1. Normalising is the encoder's own work.

Raw pixels are a quarter of the size of normalised ones, and two towers that normalise differently can share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vertebra.model.encoders.images import Preparation, prepare_images
from vertebra.model.encoders.part import ItemEncoder, ItemFault


class PixelEncoder(ItemEncoder):
    """What all encoders of square images share: preparing them, checking them, and a sample of them."""

    preparation: Preparation

    @property
    def image_size(self) -> int:
        return self.preparation.size

    def prepare(self, items: Sequence[Any]) -> np.ndarray:
        return prepare_images(items, self.preparation)

    def faults(self, values: torch.Tensor) -> list[ItemFault]:
        return pixel_faults(values, self.image_size)

    def sample(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Soft color fields with some grain: closer to pictures than plain noise, whose patches are all alike."""
        size = self.image_size
        coarse = torch.rand(count, 3, 4, 4, generator=generator)
        field = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        grain = torch.rand(count, 3, size, size, generator=generator)
        return ((0.8 * field + 0.2 * grain) * 255).to(torch.uint8)


def scaled(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Pixels between 0 and 1, in the type of the encoder's weights."""
    return values.to(dtype) / 255 if values.dtype == torch.uint8 else values.to(dtype)


def pixel_faults(values: torch.Tensor, size: int) -> list[ItemFault]:
    """What is wrong with images of a batch, item by item."""
    if values.ndim != 4 or tuple(values.shape[1:]) != (3, size, size):
        fault = f"images have the shape {tuple(values.shape[1:])}, expected (3, {size}, {size}): three channels first"
        return [(None, f"{fault}. Make them with `model.prepare`")]
    if values.dtype == torch.uint8:
        return []
    if not values.is_floating_point():
        return [(None, f"images are {values.dtype}; expected 8-bit ones (uint8), or floats between 0 and 1")]
    outside = ~((values >= 0) & (values <= 1)).flatten(1).all(1)
    return [
        (item, "holds values outside of 0..1 (or NaN); give 8-bit pixels, or divide by 255 and leave normalising out")
        for item in outside.nonzero()[:, 0].tolist()
    ]
