"""What an image encoder is given: pixels [M, 3, H, W], 8-bit or scaled to 0..1. Normalising is the encoder's own work.

Raw pixels are a quarter of the size of normalised ones, and two towers that normalise differently can share them.
"""

from __future__ import annotations

import torch


def scaled(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Pixels between 0 and 1, in the type of the encoder's weights."""
    return values.to(dtype) / 255 if values.dtype == torch.uint8 else values.to(dtype)


def pixel_faults(values: torch.Tensor, size: int) -> list[tuple[int | None, str]]:
    """What is wrong with images of a batch, item by item."""
    if values.ndim != 4 or tuple(values.shape[1:]) != (3, size, size):
        said = f"images of shape {tuple(values.shape[1:])}; expected (3, {size}, {size}): three channels first"
        return [(None, f"{said}. Make them with `prepare_images`")]
    if values.dtype == torch.uint8:
        return []
    if not values.is_floating_point():
        return [(None, f"images of {values.dtype}; expected 8-bit ones (uint8), or floats between 0 and 1")]
    outside = ~((values >= 0) & (values <= 1)).flatten(1).all(1)
    return [
        (item, "holds values outside of 0..1 (or NaN); give 8-bit pixels, or divide by 255 and leave normalising out")
        for item in outside.nonzero()[:, 0].tolist()
    ]
