"""Raw items of a sample's slots from several makers: images from one, numbers that are there already from another.

It knows samples' extras, and no models.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

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


class ImageItems(ABC):
    """A maker that shows images. What becomes of them can be replaced: `showing`."""

    show: Callable[[Sequence[Any] | np.ndarray], np.ndarray] | None = None

    @abstractmethod
    def images(self, extra: Mapping[str, Any]) -> Mapping[str, Sequence[Any] | np.ndarray]:
        """A sample's images by segment, as `pixels` takes them."""

    @abstractmethod
    def pixels(self, images: Sequence[Any] | np.ndarray) -> np.ndarray:
        """[n, 3, S, S]: images as an encoder takes them."""

    def shown(self, extra: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The items of a sample's images, by segment."""
        show = self.show or self.pixels
        return {name: show(images) for name, images in self.images(extra).items() if len(images)}

    def showing(self, show: Callable[[Sequence[Any] | np.ndarray], np.ndarray]) -> Self:
        """The same maker, whose images become what `show` makes of them: features that were computed earlier."""
        made = copy.copy(self)
        made.show = show
        return made


def image_makers(makers: Maker | None) -> list[ImageItems]:
    """Those of some makers that show images."""
    among: Sequence[Any] = makers.makers if isinstance(makers, Together) else [makers]
    return [one for one in among if isinstance(one, ImageItems)]


def showing(makers: Maker, show: Callable[[Sequence[Any] | np.ndarray], np.ndarray]) -> Maker:
    """The same makers, with `show` in place of what makes pixels of images."""
    if isinstance(makers, Together):
        return Together(*(showing(one, show) for one in makers.makers))
    return makers.showing(show) if isinstance(makers, ImageItems) else makers
