"""What a reader of a format is given, and the few steps that all of them share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vertebra.errors import DataError
from vertebra.page.checking import OnBad
from vertebra.page.geometry import Box
from vertebra.page.page import Line, Page, PlacedText, Word, joined
from vertebra.page.units import Origin, Size, UnitName


@dataclass(frozen=True)
class PageSource:
    """A file's content, and what its reader was given beside it."""

    content: Any
    """Parsed JSON, or text."""
    where: str = "the input"
    size: Size | None = None
    """The page's size in pixels, for formats that have none of their own."""
    image: Any = None
    on_bad: OnBad = "refuse"
    path: Any = None
    notes: tuple[str, ...] = ()
    """What was decided before its format was known."""

    def page(
        self,
        lines: Iterable[Line],
        *,
        size: Any = None,
        unit: UnitName = "pixel",
        origin: Origin = "top",
        number: int = 1,
        notes: Sequence[str] = (),
        **facts: Any,
    ) -> Page:
        """A page of this source, its boxes looked at."""
        return Page.of(
            lines,
            size=size or self.size,
            unit=unit,
            origin=origin,
            on_bad=self.on_bad,
            where=f"page {number} of {self.where}" if number > 1 else self.where,
            number=number,
            image=self.image,
            notes=(*self.notes, *notes),
            **facts,
        )


def box_of(numbers: Sequence[Any]) -> Box:
    """Four numbers as they stand; whether they make sense is looked at later, for all boxes at once."""
    left, top, right, bottom = (_number(number) for number in numbers)
    return Box(left, top, right, bottom)


def points_of(flat: Sequence[Any]) -> list[tuple[float, float]]:
    """`x, y, x, y …`, or a list of points, as points."""
    if flat and isinstance(flat[0], (list, tuple)):
        return [(_number(x), _number(y)) for x, y in flat]
    if len(flat) % 2:
        raise ValueError(f"{len(flat)} numbers are no points")
    return [(_number(flat[n]), _number(flat[n + 1])) for n in range(0, len(flat), 2)]


def _number(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no number")
    return whole(float(value))


def whole(number: float) -> float:
    """A number without a fraction as an integer, so that it is written as it was read."""
    return int(number) if math.isfinite(number) and number == int(number) else number


def text_of(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no text")
    return value


def share(value: Any, whole_is: float = 1.0) -> float | None:
    """A confidence as 0..1; what is no number, or negative, is none."""
    try:
        number = float(value) / whole_is
    except (TypeError, ValueError):
        return None
    return round(min(number, 1.0), 9) if math.isfinite(number) and number >= 0 else None


def pixels(page: Page) -> Page:
    """A page in pixels, for formats that have nothing else; lengths become pixels of the page's resolution, or of 72 an
    inch, where a point is a pixel."""
    return page if page.unit == "pixel" else page.to("pixel", dpi=page.dpi or 72)


def required_box(one: PlacedText, format: str) -> Box:
    """The box of a word or line, for formats that cannot leave it out."""
    if one.box is None:
        raise DataError(
            f"{one.text[:40]!r} has no box, and {format} cannot be written without; leave such lines out, or write another "
            "format (vertebra, alto, page)"
        )
    return one.box


def placed_words(line: Line) -> tuple[Word, ...]:
    """The words of a line, for formats whose words all have boxes: none where the place of one is not known."""
    return line.words if all(word.box is not None for word in line.words) else ()


def words_of(line: Line, format: str) -> tuple[Word, ...]:
    """The words of a line, for formats that have nothing but words: where they do not make its text, or it has none, or
    the place of one is not known, the line counts as one word."""
    words = placed_words(line)
    if words and joined([word.text for word in words]) == line.text:
        return words
    return (Word(line.text, required_box(line, format), confidence=line.confidence),)


def shown(number: float) -> str:
    """A coordinate as short as it can be without losing anything."""
    return str(whole(number))
