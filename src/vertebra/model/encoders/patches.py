"""`PatchEncoder`: a small image encoder that is trained from scratch with the rest: one convolution, one patch a slot.

    224 × 224 pixels, patches of 16 × 16  ──►  14 × 14 = 196 vectors, row by row

What documents need of an image where the words come as text. It knows no model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vertebra.errors import ConfigError
from vertebra.model.encoders.images import Preparation
from vertebra.model.encoders.pixels import PixelEncoder, scaled


class PatchEncoder(PixelEncoder):
    """Square images, cut into square patches; each becomes one vector of `width`."""

    kind = "patches"

    def __init__(
        self,
        width: int = 256,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        preparation: Preparation | dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if width < 1 or patch_size < 1 or image_size < patch_size or image_size % patch_size:
            raise ConfigError(f"images of {image_size} pixels in patches of {patch_size}, of width {width}, cannot be")
        self.preparation = Preparation.of(preparation, image_size)
        self.width, self.patch_size = width, patch_size
        self.slots = (image_size // patch_size) ** 2
        self.cut = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        pixels = scaled(values, self.cut.weight.dtype) * 2 - 1
        return self.cut(pixels).flatten(2).transpose(1, 2)

    def about(self) -> str:
        return f"patches of {self.patch_size} × {self.patch_size}, from {self.image_size} × {self.image_size} pixels"

    def settings(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "preparation": self.preparation.settings(),
        }
