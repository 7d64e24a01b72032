"""Raw items of a sample's slots from several makers: images from one, numbers that are there already from another.

It knows samples' extras, and no models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Maker = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""What `Samples.extra` says → items by segment."""


class ItemValues:
    """Items that a sample brings as arrays, under the names of their segments."""

    def __init__(self, *segments: str) -> None:
        self.segments = segments

    def __call__(self, extra: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {name: np.asarray(extra[name]) for name in self.segments if name in extra}


class Together:
    """The items of several makers, each of other segments."""

    def __init__(self, *makers: Maker) -> None:
        self.makers = makers

    def __call__(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        return {name: items for make in self.makers for name, items in make(extra).items()}


def in_place_of(kind: type, maker: Maker, makers: Maker | None) -> Maker:
    """The same makers with another in place of those of a kind."""
    if not isinstance(makers, Together):
        return maker
    return Together(*(maker if isinstance(one, kind) else one for one in makers.makers))
