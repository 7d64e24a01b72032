"""Boxes and quads: four numbers, four points. Origin at the top left, y downwards; of units they know nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Point = tuple[float, float]
Quad = tuple[Point, Point, Point, Point]
"""Four corners, clockwise from the top left one of the text (not of the page: of turned text it may lie anywhere)."""


class Box(NamedTuple):
    """Left, top, right, bottom: `left <= right`, `top <= bottom`, y downwards from the top of the page."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def center(self) -> Point:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def scaled(self, x: float, y: float) -> Box:
        return Box(self.left * x, self.top * y, self.right * x, self.bottom * y)

    def shared(self, other: Box) -> float:
        """The area that lies in both."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0

    def iou(self, other: Box) -> float:
        """Shared area over the area of both together; 1 for equal boxes, empty ones too."""
        if self == other:
            return 1.0
        shared = self.shared(other)
        total = self.area + other.area - shared
        return shared / total if total > 0 else 0.0


def union(boxes: Iterable[Box]) -> Box | None:
    """The smallest box around all; None of none."""
    found = list(boxes)
    if not found:
        return None
    return Box(
        min(box.left for box in found),
        min(box.top for box in found),
        max(box.right for box in found),
        max(box.bottom for box in found),
    )


def around(points: Sequence[Point]) -> Box:
    """The smallest box around points, of any polygon. A number that is none stays visible."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if any(not math.isfinite(number) for number in (*xs, *ys)):
        return Box(math.nan, math.nan, math.nan, math.nan)
    return Box(min(xs), min(ys), max(xs), max(ys))


def corners(box: Box) -> Quad:
    """A box as a quad."""
    left, top, right, bottom = box
    return (left, top), (right, top), (right, bottom), (left, bottom)


def turned_point(point: Point, angle: int, size: tuple[float, float]) -> Point:
    """Where a point of a page of `size` lies once the page is turned clockwise by 0, 90, 180 or 270 degrees."""
    (x, y), (width, height) = point, size
    return {0: (x, y), 90: (height - y, x), 180: (width - x, height - y), 270: (y, width - x)}[angle]


def turned(box: Box, angle: int, size: tuple[float, float]) -> Box:
    """The same of a box."""
    return around([turned_point((box.left, box.top), angle, size), turned_point((box.right, box.bottom), angle, size)])


def turned_size(size: tuple[float, float], angle: int) -> tuple[float, float]:
    """The size of a page once it is turned."""
    return size if angle % 180 == 0 else (size[1], size[0])
