"""Pieces of a line's text, and where on the page a text stands that was made of them.

    Total: RM64.15 (6%)      Total │ : │ RM │ 64.15 │ ( │ 6 │ % │ )

A value that is copied begins and ends with a piece: a currency, a colon or a unit may be left out, but no word and no number
is ever cut. Marks belong to their letters; scripts without blanks have a piece a letter. It knows no tokens.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vertebra.page.geometry import Box, union
from vertebra.page.page import Line, solid

SEPARATOR = "\n"
"""Between two lines: what is copied never holds it."""
_IN_NUMBERS = frozenset(".,:/-'’٫٬")
_IN_WORDS = frozenset(".-'’&_")


def on_one_line(text: str) -> str:
    """A text on one line, as models read it: with single blanks."""
    return " ".join(text.split())


def pieces(text: str) -> list[tuple[int, int]]:
    """(start, end) of every piece, in order; blanks belong to none."""
    found: list[tuple[int, int]] = []
    start, kind = 0, " "
    kinds = [_kind(letter) for letter in text]
    for at, own in enumerate(kinds):
        if own == "m" and kind != " ":
            continue  # a mark stays with what it marks
        joins = own == kind and own in "dl"
        if not joins and kind in "dl" and at + 1 < len(text) and kinds[at + 1] == kind:
            joins = text[at] in (_IN_NUMBERS if kind == "d" else _IN_WORDS)
        if joins:
            continue
        if kind != " ":
            found.append((start, at))
        start, kind = at, own
    if kind != " ":
        found.append((start, len(text)))
    return found


def _kind(letter: str) -> str:
    """Blank, digit, letter, mark, a letter of a script without blanks, or something else."""
    if letter.isspace():
        return " "
    if letter.isdigit():
        return "d"
    if solid(letter):
        return "s"
    if letter.isalpha():
        return "l"
    return "m" if unicodedata.category(letter)[0] == "M" else "o"


@dataclass(frozen=True, kw_only=True)
class TextPlace:
    """One place where a text stands."""

    page: int
    """The page's number."""
    lines: tuple[int, ...]
    """The numbers of its lines on that page, in reading order."""
    boxes: tuple[Box, ...]
    """A box a line, in the page's unit: around the words that hold it, or around the line where its words are unknown."""


class TextPlaces:
    """Lines in reading order, (page number, line number, line) each, and where texts stand in them."""

    def __init__(self, lines: Sequence[tuple[int, int, Line]]) -> None:
        self._lines = [one for one in lines if on_one_line(one[2].text)]
        self.texts = [on_one_line(line.text) for _, _, line in self._lines]
        """What can be copied from, a line each."""
        self._at: list[int] = []  # where each line begins in the whole text
        self._starts: set[int] = set()
        self._ends: set[int] = set()
        at = 0
        for text in self.texts:
            self._at.append(at)
            found = pieces(text)
            self._starts.update(at + start for start, _ in found)
            self._ends.update(at + end for _, end in found)
            at += len(text) + len(SEPARATOR)

    def of(self, value: str, *, across: bool = False) -> tuple[TextPlace, ...]:
        """Every place of a value, in reading order. `across`: it may run over the ends of lines, with a blank between."""
        value = on_one_line(value)
        text = (" " if across else SEPARATOR).join(self.texts)
        return tuple(self._place(start, start + len(value)) for start in self._found(text, value)) if value else ()

    def _found(self, text: str, value: str) -> Iterator[int]:
        start = text.find(value)
        while start >= 0:
            if start in self._starts and start + len(value) in self._ends:
                yield start
            start = text.find(value, start + 1)

    def _place(self, start: int, end: int) -> TextPlace:
        first, last = bisect_right(self._at, start) - 1, bisect_right(self._at, end - 1) - 1
        boxes = []
        for number in range(first, last + 1):
            at = self._at[number]
            box = box_within(self._lines[number][2], max(start - at, 0), min(end - at, len(self.texts[number])))
            if box is not None:
                boxes.append(box)
        # a place on two pages is told by the page on which it begins
        page = self._lines[first][0]
        on_page = [self._lines[number] for number in range(first, last + 1) if self._lines[number][0] == page]
        return TextPlace(page=page, lines=tuple(number for _, number, _ in on_page), boxes=tuple(boxes[: len(on_page)]))


def box_within(line: Line, start: int, end: int) -> Box | None:
    """The box around the words that hold these characters of a line's text; the line's where its words do not spell it."""
    at, found = 0, []
    text = on_one_line(line.text)
    for word in line.words:
        spelled = on_one_line(word.text)
        at += text[at : at + 1] == " "
        if not spelled or not text.startswith(spelled, at) or word.box is None:
            return line.box
        if at < end and start < at + len(spelled):
            found.append(word.box)
        at += len(spelled)
    return union(found) if found and at == len(text) else line.box
