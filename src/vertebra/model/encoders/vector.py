"""`VectorEncoder`: proprio and other plain vectors, one slot each; the projector does the rest. It knows no robot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vertebra.errors import ConfigError, DataError
from vertebra.model.encoders.part import ItemEncoder, ItemFault


class VectorEncoder(ItemEncoder):
    """Vectors of `width` numbers, handed on as they are: normalise them before, with the statistics of their data."""

    kind = "vector"
    slots = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError(f"vectors of width {width}; expected 1 or more")
        self.width = width

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.unsqueeze(1)

    def about(self) -> str:
        return f"vectors of {self.width} numbers"

    def settings(self) -> dict[str, Any]:
        return {"width": self.width}

    def prepare(self, items: Sequence[Any]) -> np.ndarray:
        try:
            return np.asarray(items, dtype=np.float32).reshape(len(items), self.width)
        except (TypeError, ValueError) as error:
            raise DataError(f"vectors must be lists of {self.width} numbers each") from error

    def faults(self, values: torch.Tensor) -> list[ItemFault]:
        if values.ndim != 2 or values.shape[1] != self.width:
            return [(None, f"vectors have the shape {tuple(values.shape)}; expected [vectors, {self.width}]")]
        wrong = ~torch.isfinite(values).all(1)
        return [(item, "holds NaN or infinite values") for item in wrong.nonzero()[:, 0].tolist()]

    def sample(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(count, self.width, generator=generator)
