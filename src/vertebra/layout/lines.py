"""A document's lines as a model is given them: in reading order, on one line each, boxes as whole numbers.

Every one keeps the number that it has on its page, so that an answer can be pointed at whatever the order. It knows no
tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vertebra.layout.record import PageRecord
from vertebra.page.geometry import Box
from vertebra.page.order import in_order
from vertebra.page.page import Document, Line, Page, distinct

Whole = tuple[int, int, int, int]
"""Left, top, right, bottom, from 0 to the record's scale."""


@dataclass(frozen=True, slots=True)
class Laid:
    """One line, ready to be written."""

    page: int
    """The number of its page, from 1 on."""
    number: int
    """Its number on the page, from 0 on: `document.page(page).lines[number]`."""
    text: str
    words: tuple[str, ...]
    """Its words, in order, each of which stands in the text."""
    box: Whole | None
    word_boxes: tuple[Whole | None, ...]
    """Theirs: measured, or a share of the line's by characters."""


def lines_of(pages: Document | Page | Iterable[Page], record: PageRecord) -> list[Laid]:
    """All lines that have a text, page by page in the record's reading order."""
    found: list[Laid] = []
    for page in distinct([pages] if isinstance(pages, Page) else pages):
        found += _of_page(page, record)
    return found


def _of_page(page: Page, record: PageRecord) -> list[Laid]:
    order = in_order([line.box for line in page.lines], page.text, record.order)
    if any(line.box is not None for line in page.lines):
        page = page.to("relative")
    made = (_laid(page.number, number, page.lines[number], record.scale) for number in order)
    return [line for line in made if line.text]


def _laid(page: int, number: int, line: Line, scale: int) -> Laid:
    text = " ".join(line.text.split())
    words, boxes = _words(line, text)
    box = _whole(line.box, scale)
    if not words:
        words = tuple(text.split())
        boxes = (None,) * len(words)
    given = [_whole(one, scale) for one in boxes]
    if box is not None and any(one is None for one in given):
        given = [own or share for own, share in zip(given, _shares(box, text, words), strict=True)]
    return Laid(page, number, text, words, box, tuple(given))


def _words(line: Line, text: str) -> tuple[tuple[str, ...], tuple[Box | None, ...]]:
    """The line's own words, where its text is made of them in that order."""
    words = [(" ".join(word.text.split()), word.box) for word in line.words]
    words = [one for one in words if one[0]]
    at = 0
    for word, _ in words:
        found = text.find(word, at)
        if found < 0:
            return (), ()
        at = found + len(word)
    return tuple(word for word, _ in words), tuple(box for _, box in words)


def _shares(box: Whole, text: str, words: Sequence[str]) -> list[Whole]:
    """A line's box, cut between its words by characters."""
    left, top, right, bottom = box
    made, at = [], 0
    for word in words:
        at = text.index(word, at)
        start, at = at, at + len(word)
        x = [left + round((right - left) * place / len(text)) for place in (start, at)]
        made.append((x[0], top, x[1], bottom))
    return made


def _whole(box: Box | None, scale: int) -> Whole | None:
    if box is None:
        return None
    left, top, right, bottom = (min(max(round(number * scale), 0), scale) for number in box)
    return left, top, right, bottom


def shuffled(lines: Sequence[Laid], generator: Any) -> list[Laid]:
    """The lines of each page in an order that is drawn; the pages keep theirs. `generator`: numpy's."""
    found: list[Laid] = []
    for page in dict.fromkeys(line.page for line in lines):
        own = [line for line in lines if line.page == page]
        found += [own[number] for number in generator.permutation(len(own))]
    return found
