"""Characters grouped into words, words into lines. A word ends at a blank, drawn or put in by pdfium, at a gap, at a new
direction; a line where the text goes elsewhere, or at a gap that is wide enough for a column of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vertebra.page.geometry import Box
from vertebra.page.page import Line, Word, line_of
from vertebra.page.pdf.characters import Character

GAP = 3.0
"""Points between two characters of different words, where no blank says it."""
COLUMN = 2.0
"""Font sizes between two words of different lines on the same height."""


@dataclass(slots=True)
class _Word:
    text: str
    left: float
    top: float
    right: float
    bottom: float
    turn: int
    size: float

    def box(self) -> Box:
        return Box(self.left, self.top, self.right, self.bottom)


def words(found: Iterable[Character], *, generated: bool = True, gap: float = GAP) -> Iterator[_Word | None]:
    """Words in order, and None where pdfium ends a line. `generated=False`: blanks that were not drawn end no word."""
    word: _Word | None = None
    for one in found:
        text = one.text
        if one.generated and not generated and text != "\n":
            continue
        if text.isspace():
            if word is not None:
                if not one.generated and word.turn == one.turn == 0 and word.left < one.left < word.right:
                    word.right = one.left  # a slanted last letter leans over the blank: the word ends with its advance
                yield word
                word = None
            if text in "\r\n":
                yield None
            continue
        if word is not None and one.turn == word.turn and _touching(word, one, gap):
            word.text += text
            word.left, word.right = min(word.left, one.left), max(word.right, one.right)
            word.top, word.bottom = min(word.top, one.top), max(word.bottom, one.bottom)
            continue
        if word is not None:
            yield word
        word = _Word(text, one.left, one.top, one.right, one.bottom, one.turn, one.size)
    if word is not None:
        yield word


def _touching(word: _Word, one: Character, gap: float) -> bool:
    """Whether a character goes on with a word, from the left or the right."""
    across = max(one.left - word.right, word.left - one.right)
    down = max(one.top - word.bottom, word.top - one.bottom)
    if word.turn % 180:
        across, down = down, across
        return across <= gap and abs(one.left - word.left) <= gap
    return across <= gap and abs(one.top - word.top) <= gap


def lines(found: Iterable[Character], *, inside: tuple[float, float]) -> list[Line]:
    """Lines of a page of a size; what was drawn outside of it is nobody's to see, and left out."""
    made: list[Line] = []
    row: list[_Word] = []

    def close() -> None:
        if row:
            made.append(line_of([Word(word.text, word.box()) for word in row]))
            row.clear()

    for word in words(found):
        if word is None:
            close()
            continue
        if word.right <= 0 or word.bottom <= 0 or word.left >= inside[0] or word.top >= inside[1]:
            continue
        if row and not _same_line(row[-1], word):
            close()
        row.append(word)
    close()
    return made


def _same_line(last: _Word, word: _Word) -> bool:
    if last.turn != word.turn:
        return False
    size = max(last.size, word.size, 1.0)
    across = max(word.left - last.right, last.left - word.right)
    shared = min(last.bottom, word.bottom) - max(last.top, word.top)
    high = min(last.bottom - last.top, word.bottom - word.top)
    if last.turn % 180:
        across = max(word.top - last.bottom, last.top - word.bottom)
        shared = min(last.right, word.right) - max(last.left, word.left)
        high = min(last.right - last.left, word.right - word.left)
    return shared >= 0.5 * high and across <= COLUMN * size
