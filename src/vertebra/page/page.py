"""A page: lines of text with their places, in one unit, with its size. A document: pages.

    page = Page.of([Line("Total 9.50", box=(40, 700, 310, 722))], size=(620, 877))
    page.to("thousand").lines[0].box            Box(65, 798, 500, 823)
    page.part()                                 what a conversation takes: lines in reading order, boxes 0..1000

The origin is the top left corner, always: a source that counts from the bottom is turned over where it enters
(`origin="bottom"`). A page knows no tokens, no models and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from vertebra.errors import DataError
from vertebra.page.checking import OnBad, checked, required_size
from vertebra.page.geometry import Box, Quad, around, corners, turned_point, turned_size, union
from vertebra.page.numbered import facts_of_lines
from vertebra.page.order import in_order
from vertebra.page.units import Origin, Size, UnitName, factors, unit_of

Order = Literal["given", "top", "columns"]


@dataclass(frozen=True, kw_only=True)
class PlacedText:
    """What words and lines share; the text comes first."""

    text: str = field(kw_only=False)
    box: Box | None = field(default=None, kw_only=False)
    """None where nothing is known of its place."""
    quad: Quad | None = None
    """Four corners, where the source has them."""
    confidence: float | None = None
    """0..1, where the source has one."""
    label: str | None = None
    """What the source calls it: `question`, `menu.price`, `section_header` …"""


@dataclass(frozen=True, kw_only=True)
class Word(PlacedText):
    """One word and its place."""


@dataclass(frozen=True, kw_only=True)
class Line(PlacedText):
    """One line (of a form: one entity) and its place, in reading order of the script: what is read first stands first."""

    words: tuple[Word, ...] = ()
    """Its words, where the source has them."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Lines in the order in which the source has them, the page's size, and the unit of all boxes."""

    lines: tuple[Line, ...] = ()
    size: Size | None = None
    """Width and height, in `size_unit`; None: a relative source that does not know it."""
    unit: UnitName = "pixel"
    size_unit: UnitName = "pixel"
    """`unit`, where that is a length; else what the size was measured in."""
    number: int = 1
    """Its number in its document, from 1 on."""
    dpi: float | None = None
    """Pixels an inch, where they are known."""
    image: Any = field(default=None, compare=False, repr=False)
    """Its picture: a path or an image."""
    name: str | None = None
    """What the source calls it: the file of its image, most often."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else the source has: `fields`, `links`, `questions` …"""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was mended or decided on the way in, in words."""

    @classmethod
    def of(
        cls,
        lines: Iterable[Line],
        *,
        size: Size | None,
        unit: UnitName = "pixel",
        origin: Origin = "top",
        on_bad: OnBad = "refuse",
        where: str = "a page",
        **facts: Any,
    ) -> Page:
        """A page whose boxes have been looked at: numbers, in order, inside the page.

        `on_bad`: refuse raises one error with all faults; repair sorts, clips or takes away, and writes `notes`.
        """
        width_height = required_size(size, unit, where)
        size_unit = facts.pop("size_unit", unit if unit_of(unit).whole is None else "pixel")
        page = cls(size=width_height, unit=unit, size_unit=size_unit, **facts)
        sound, mended = checked(tuple(lines), page.extent, origin=origin, on_bad=on_bad, where=where)
        return replace(page, lines=sound, notes=(*page.notes, *mended))

    @property
    def text(self) -> str:
        """The lines' texts, each on a line."""
        return "\n".join(line.text for line in self.lines)

    @property
    def words(self) -> list[Word]:
        """All words; a line without words counts as one."""
        return [word for line in self.lines for word in line.words or (Word(line.text, line.box, quad=line.quad),)]

    @property
    def extent(self) -> Size | None:
        """Where the page ends in its own unit."""
        whole = unit_of(self.unit).whole
        return (whole, whole) if whole else self.size

    def to(self, unit: UnitName, *, size: Size | None = None, dpi: float | None = None) -> Page:
        """The same page in another unit, or at another size of that unit; `thousand` are whole numbers."""
        dpi = dpi or self.dpi
        x, y = factors(self.unit, unit, self.size, size_unit=self.size_unit, new_size=size, dpi=dpi)
        if unit_of(unit).whole is None:
            start = self.extent or (1.0, 1.0)
            new, new_unit = size or (start[0] * x, start[1] * y), unit
        else:
            new, new_unit = self.size, self.size_unit  # type: ignore[assignment]
        whole = unit == "thousand" and self.unit != "thousand"
        moved = self.moved(lambda px, py: _thousand(px * x, py * y) if whole else (px * x, py * y))
        return replace(moved, unit=unit, size=new, size_unit=new_unit, dpi=dpi)

    def turned(self, angle: int) -> Page:
        """The page turned clockwise by 0, 90, 180 or 270 degrees; its image is left to whoever has it."""
        if angle % 90:
            raise DataError(f"a page is turned by 0, 90, 180 or 270 degrees; found {angle}")
        angle, extent = angle % 360, self.extent
        if angle == 0:
            return self
        if extent is None or self.size is None:
            raise DataError("a page without a size cannot be turned; give `size=`")
        made = self.moved(lambda x, y: turned_point((x, y), angle, extent))
        return replace(made, size=turned_size(self.size, angle))

    def moved(self, move: Callable[[float, float], tuple[float, float]]) -> Page:
        """Every point of every box and quad, moved."""

        def place(one: Any) -> dict[str, Any]:
            box = None if one.box is None else around([move(*one.box[:2]), move(*one.box[2:])])
            return {"box": box, "quad": None if one.quad is None else tuple(move(*point) for point in one.quad)}

        def line(one: Line) -> Line:
            return replace(one, **place(one), words=tuple(replace(word, **place(word)) for word in one.words))

        return replace(self, lines=tuple(line(one) for one in self.lines))

    def in_order(self, order: Order) -> Page:
        """Its lines as given, from the top (rows), or column by column."""
        numbers = in_order([line.box for line in self.lines], self.text, order)
        return self.of_lines(numbers)

    def of_lines(self, numbers: Sequence[int]) -> Page:
        """The page with these of its lines, in this order; facts that name lines by number follow them."""
        lines = tuple(self.lines[number] for number in numbers)
        return replace(self, lines=lines, facts=facts_of_lines(self.facts, numbers, len(self.lines)))

    def part(self, order: Order = "given") -> dict[str, Any]:
        """The page as a part of a conversation: `{"type": "page", "lines": [{"text", "box"}, …]}`, boxes 0..1000 as whole
        numbers, a text on one line; a line without a box has None."""
        page = self.in_order(order).to("thousand")
        lines = [
            {"text": " ".join(line.text.split()), "box": None if line.box is None else [int(n) for n in line.box]}
            for line in page.lines
        ]
        return {"type": "page", "lines": [line for line in lines if line["text"]]}


def _thousand(x: float, y: float) -> tuple[float, float]:
    return min(max(round(x), 0), 1000), min(max(round(y), 0), 1000)


@dataclass(frozen=True)
class Document:
    """Pages in order, each with a number of its own, and where they come from."""

    pages: tuple[Page, ...]
    name: str | None = None

    def __post_init__(self) -> None:
        for _ in distinct(self.pages):
            pass

    def __len__(self) -> int:
        return len(self.pages)

    def __iter__(self) -> Iterator[Page]:
        return iter(self.pages)

    def page(self, number: int) -> Page:
        """The page of a number, from 1 on."""
        for page in self.pages:
            if page.number == number:
                return page
        raise DataError(_not_there(number, [page.number for page in self.pages], self.name))

    @property
    def text(self) -> str:
        """The pages' texts, a blank line between them."""
        return "\n\n".join(page.text for page in self.pages)


def distinct(pages: Iterable[Page]) -> Iterator[Page]:
    """The pages as they come; a number that was there before is refused, for places are looked up by it."""
    seen: set[int] = set()
    for page in pages:
        if page.number in seen:
            raise DataError(
                f"there are two pages {page.number} in this document; number them (`replace(page, number=…)`)"
            )
        seen.add(page.number)
        yield page


def numbered(pages: Iterable[Page], where: str) -> tuple[Page, ...]:
    """The pages as they are; where two have the same number, all are numbered anew in their order, which their notes
    list."""
    found = tuple(pages)
    if len({page.number for page in found}) == len(found):
        return found
    note = "page {} in {}, where a number is there twice: the pages are numbered in their order"
    return tuple(
        replace(page, number=number, notes=(*page.notes, note.format(page.number, where)))
        for number, page in enumerate(found, 1)
    )


def _not_there(number: int, numbers: Sequence[int], name: str | None) -> str:
    there = f"{min(numbers)} to {max(numbers)}" if numbers else "none"
    return f"there is no page {number} in {f'`{name}`' if name else 'this document'}; its pages are {there}"


def line_of(words: Sequence[Word], box: Any = None, **facts: Any) -> Line:
    """Words as one line: their texts with blanks between (none between two CJK characters), a box around all."""
    if box is None:
        box = union(word.box for word in words if word.box is not None)
    return Line(joined([word.text for word in words]), box, words=tuple(words), **facts)


def joined(texts: Sequence[str]) -> str:
    """Words as they are written: scripts without blanks between words have none."""
    made = ""
    for text in texts:
        made += text if not made or (solid(made[-1]) and text and solid(text[0])) else f" {text}"
    return made


def solid(letter: str) -> bool:
    """Whether a letter belongs to a script that is written without blanks: Han, Kana, their punctuation."""
    return "\u2e80" <= letter <= "\u9fff" or "\uf900" <= letter <= "\ufaff" or "\U00020000" <= letter <= "\U0003ffff"


def quad_line(text: str, points: Sequence[tuple[float, float]], **facts: Any) -> Line:
    """A line from its corners; a polygon of other than four has no quad."""
    box = around(points)
    quad: Any = tuple((x, y) for x, y in points) if len(points) == 4 else None
    return Line(text, box, quad=None if quad == corners(box) else quad, **facts)
