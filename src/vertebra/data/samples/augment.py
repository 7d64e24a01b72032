"""Other looks of the same images: moved by some pixels, in other light. What is drawn is drawn once for a sample, and all
its cameras and moments are changed alike. It knows pixels [n, 3, H, W] of 8 bits, and no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from vertebra.config import Bound, Count, require_bounds

_GRAY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far images may be changed."""

    shift: Count = 0
    """Pixels up, down, left or right; the border is repeated."""
    crop: Annotated[float, Bound(least=0, below=1)] = 0.0
    """The most of a side that is cut away; what is left is brought back to the whole size."""
    color: Annotated[float, Bound(least=0, below=1)] = 0.0
    """Brightness, contrast and saturation by up to this share more or less."""

    def __post_init__(self) -> None:
        require_bounds(self)

    def __bool__(self) -> bool:
        return bool(self.shift or self.crop or self.color)

    def __call__(self, images: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The same images by segment, changed by one draw."""
        drawn = rng.uniform(-1, 1, 6).tolist()
        taken: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        made = {}
        for name, pixels in images.items():
            if self.shift or self.crop:
                high, wide = size = pixels.shape[-2:]
                if size not in taken:
                    taken[size] = self._taken(high, drawn[0], drawn[2]), self._taken(wide, drawn[1], drawn[2])
                rows, columns = taken[size]
                pixels = pixels.take(rows, axis=-2).take(columns, axis=-1)
            made[name] = recolored(pixels, *(1 + self.color * one for one in drawn[3:])) if self.color else pixels
        return made

    def _taken(self, side: int, offset: float, zoom: float) -> np.ndarray:
        """Which row (or column) stands in the place of each: of a part of the image, moved."""
        kept = 1 - self.crop * (zoom + 1) / 2
        moved = offset * side * (1 - kept) / 2 + round(offset * self.shift)
        middle = (side - 1) / 2
        at = np.arange(-middle, side - middle) * kept + (middle + moved)
        return np.rint(at).astype(np.intp).clip(0, side - 1)


def recolored(pixels: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """Pixels [n, 3, H, W] in another light: all brighter, further from their mean, further from gray."""
    made = pixels.astype(np.float32)
    if saturation != 1:
        gray = np.einsum("nchw,c->nhw", made, _GRAY)[:, None]
        made = gray + (made - gray) * np.float32(saturation)
    mean = made.mean((1, 2, 3), keepdims=True)
    made = (mean + (made - mean) * np.float32(contrast)) * np.float32(brightness)
    return np.clip(np.rint(made), 0, 255).astype(np.uint8)
