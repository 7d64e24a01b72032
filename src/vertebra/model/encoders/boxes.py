"""Where words stand on a page: boxes (left, top, right, bottom), whole numbers 0..1000, corners sorted, as vectors.

    BoxTables   x[l] y[t] x[r] y[b] h[b - t] w[r - l] from learned tables, side by side, as LayoutLMv3 has them
    BoxWaves    sines and cosines of the same six numbers at doubling frequencies: nothing to learn before the projector

A box of four times -100 says "no box" (a mark, a question): added to a token it changes nothing, in a slot of its own
it is a learned vector. Knows no page and no model.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from vertebra.errors import ConfigError, DataError
from vertebra.model.encoders.part import ItemEncoder, ItemFault
from vertebra.sequence.length import listed

HIGHEST = 1000
"""The right and bottom end of a page."""
NO_BOX = -100


class BoxEncoder(ItemEncoder):
    """What both ways of encoding boxes share: one box is one vector, and -100 is none."""

    slots = 1
    whole_numbers = False
    none: nn.Parameter

    @abstractmethod
    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        """[M, 6] (left, top, right, bottom, height, width) -> [M, width]."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        nowhere = no_box(values)
        boxes = values.masked_fill(nowhere[:, None], 0)
        left, top, right, bottom = boxes.unbind(1)
        encoded = self.encode(torch.stack([left, top, right, bottom, bottom - top, right - left], 1))
        return torch.where(nowhere[:, None], self.none.to(encoded.dtype), encoded).unsqueeze(1)

    def absent(self, values: torch.Tensor) -> torch.Tensor:
        return no_box(values)[:, None]

    def prepare(self, items: Sequence[Any]) -> np.ndarray:
        """Boxes as an array [M, 4]; None is "no box"."""
        rows = [[NO_BOX] * 4 if box is None else box for box in items]
        try:
            boxes = np.asarray(rows, dtype=np.float64).reshape(len(rows), 4)
        except (TypeError, ValueError) as error:
            raise DataError("boxes are lists of four numbers: left, top, right, bottom; or None for no box") from error
        whole = not np.isnan(boxes).any() and (boxes == boxes.round()).all()
        array = boxes.astype(np.int64 if whole else np.float32)
        faults = [f"box {item}: {fault}" for item, fault in self.faults(torch.from_numpy(array))]
        if faults:
            raise DataError(listed(faults))
        return array

    def faults(self, values: torch.Tensor) -> list[ItemFault]:
        if values.ndim != 2 or values.shape[1] != 4:
            return [
                (None, f"boxes have the shape {tuple(values.shape)}; expected [boxes, 4]: left, top, right, bottom")
            ]
        left, top, right, bottom = values.unbind(1)
        inside = ((values >= 0) & (values <= HIGHEST)).all(1)
        upright = (left <= right) & (top <= bottom)
        whole = (values == values.round()).all(1) if self.whole_numbers and values.is_floating_point() else inside
        wrong = ~((inside & upright & whole) | no_box(values))
        return [(item, _fault(values[item].tolist())) for item in wrong.nonzero()[:, 0].tolist()]

    def sample(self, count: int, generator: torch.Generator) -> torch.Tensor:
        corners = torch.randint(0, HIGHEST + 1, (count, 2, 2), generator=generator).sort(1).values
        return corners.flatten(1)


class BoxTables(BoxEncoder):
    """Learned tables of 1024 rows; six of their rows, `size` wide each, side by side."""

    kind = "box tables"
    whole_numbers = True

    def __init__(self, size: int = 32, *, steps: int = 1024) -> None:
        super().__init__()
        if size < 1 or steps <= HIGHEST:
            raise ConfigError(
                f"tables of {steps} rows, {size} wide; expected more than {HIGHEST} rows and a width of 1"
            )
        self.size, self.steps, self.width = size, steps, 6 * size
        self.x, self.y, self.h, self.w = (nn.Embedding(steps, size) for _ in range(4))
        self.none = nn.Parameter(torch.randn(self.width))

    def about(self) -> str:
        return f"boxes 0..{HIGHEST}, six tables of {self.steps} × {self.size}"

    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        left, top, right, bottom, height, width = numbers.long().unbind(1)
        found = (self.x(left), self.y(top), self.x(right), self.y(bottom), self.h(height), self.w(width))
        return torch.cat(found, 1)

    def settings(self) -> dict[str, Any]:
        return {"size": self.size, "steps": self.steps}


class BoxWaves(BoxEncoder):
    """Sines and cosines of the six numbers: half a wave over the page, then one, two, four …"""

    kind = "box waves"

    def __init__(self, frequencies: int = 8) -> None:
        super().__init__()
        if not 1 <= frequencies <= 16:
            raise ConfigError(f"{frequencies} frequencies; expected 1 to 16")
        self.frequencies, self.width = frequencies, 6 * 2 * frequencies
        self.none = nn.Parameter(torch.randn(self.width))

    def about(self) -> str:
        return f"boxes 0..{HIGHEST}, sines and cosines of {self.frequencies} frequencies"

    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        dtype = self.none.dtype
        # computed in fp32: bf16 has too few bits to tell neighboring boxes apart
        octaves = 2.0 ** torch.arange(self.frequencies, device=numbers.device)
        phase = (numbers.float() * (math.pi / HIGHEST))[..., None] * octaves
        return torch.cat([phase.sin(), phase.cos()], -1).flatten(1).to(dtype)

    def settings(self) -> dict[str, Any]:
        return {"frequencies": self.frequencies}


def no_box(values: torch.Tensor) -> torch.Tensor:
    """[M] where all four numbers are -100."""
    return (values == NO_BOX).all(1)


def _fault(box: list[float]) -> str:
    left, top, right, bottom = box
    if any(math.isnan(number) for number in box):
        return f"{box} is not a number; use four times {NO_BOX} for no box"
    if not all(0 <= number <= HIGHEST for number in box):
        return f"{box} leaves 0..{HIGHEST}; scale boxes by the page's width and height (or four times {NO_BOX}: no box)"
    if left > right or top > bottom:
        return f"{box} is upside down; sort the corners: left <= right, top <= bottom"
    return f"{box} has fractions; tables need whole numbers, round them (or use BoxWaves)"
