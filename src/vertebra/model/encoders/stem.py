"""`StemEncoder`: a small convolutional image encoder that is trained from scratch: a grid of tokens, and key points.

    pixels ─ conv /2 ─ conv /2 ─┬─ conv /2 … ──► grid × grid vectors, row by row, each with a learned place
                                └─ conv 1×1 ─ softmax over the map ──► (x, y) of every point ──► one vector

What robots need of a small camera image: the grid shows what is there, the points where it is, to a fraction of a cell.
It takes 8-bit pixels and knows no model.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from vertebra.errors import ConfigError
from vertebra.model.encoders.images import Preparation
from vertebra.model.encoders.pixels import PixelEncoder, scaled

FINE = 4
"""Pixels of a cell of the map that key points are found on."""
_GROUPS = 8
"""Channels are normalised in so many groups."""


class StemEncoder(PixelEncoder):
    """Square images as `grid` × `grid` vectors of `width`, and one more of `points` key points where there are any."""

    kind = "stem"

    def __init__(
        self,
        width: int = 128,
        *,
        image_size: int = 64,
        grid: int = 4,
        points: int = 32,
        channels: int = 32,
        preparation: Preparation | dict[str, Any] | None = None,
    ) -> None:
        """`channels`: of the first convolution; each further one has half as many more, up to `width`."""
        super().__init__()
        halvings = round(math.log2(image_size / (FINE * grid))) if image_size > 0 and grid > 0 else -1
        faults = []
        if halvings < 0 or FINE * grid * 2 ** max(halvings, 0) != image_size:
            faults.append(
                f"a grid of {grid} for images of {image_size} pixels: expected image_size / {FINE}, or half, …"
            )
        if channels < 1 or channels % _GROUPS or width < 1 or points < 0:
            faults.append(
                f"width {width}, points {points}, channels {channels}: expected channels in groups of {_GROUPS}"
            )
        if faults:
            raise ConfigError(f"a stem that cannot be: {'; '.join(faults)}")
        self.preparation = Preparation.of(preparation, image_size)
        self.width, self.grid, self.points, self.channels = width, grid, points, channels
        self.slots = grid * grid + (1 if points else 0)
        wide = [channels * (2 + step) // 2 // _GROUPS * _GROUPS for step in range(halvings + 2)]
        self.fine = nn.Sequential(_halved(3, wide[0], 5), _halved(wide[0], wide[1], 3))
        self.coarse = nn.Sequential(*(_halved(a, b, 3) for a, b in pairwise(wide[1:])))
        self.out = nn.Conv2d(wide[-1], width, 1)
        self.place = nn.Parameter(0.02 * torch.randn(grid * grid, width))
        if points:
            self.maps = nn.Conv2d(wide[1], points, 1)
            self.where = nn.Linear(2 * points, width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        pixels = scaled(values, self.out.weight.dtype) * 2 - 1
        fine = self.fine(pixels)
        cells = self.out(self.coarse(fine)).flatten(2).transpose(1, 2) + self.place
        if not self.points:
            return cells
        found = self.where(key_points(self.maps(fine)).flatten(1))
        return torch.cat([cells, found[:, None]], 1)

    def about(self) -> str:
        seen = f", {self.points} key points" if self.points else ""
        return f"convolutions to {self.grid} × {self.grid}{seen}, from {self.image_size} × {self.image_size} pixels"

    def settings(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "image_size": self.image_size,
            "grid": self.grid,
            "points": self.points,
            "channels": self.channels,
            "preparation": self.preparation.settings(),
        }


def key_points(maps: torch.Tensor) -> torch.Tensor:
    """[M, points, H, W] maps -> [M, points, 2]: the mean x and y, in −1…1, of a softmax over each."""
    high, wide = maps.shape[-2:]
    shares = maps.float().flatten(2).softmax(-1).view(maps.shape)
    x = shares.sum(-2) @ torch.linspace(-1, 1, wide, device=maps.device)
    y = shares.sum(-1) @ torch.linspace(-1, 1, high, device=maps.device)
    return torch.stack([x, y], -1).to(maps.dtype)


def _halved(narrow: int, wide: int, size: int) -> nn.Sequential:
    conv = nn.Conv2d(narrow, wide, size, stride=2, padding=size // 2)
    return nn.Sequential(conv, nn.GroupNorm(_GROUPS, wide), nn.ReLU(inplace=True))
