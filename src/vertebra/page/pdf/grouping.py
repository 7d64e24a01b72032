"""Characters grouped into words, words into lines. A word ends at a blank, drawn or put in by pdfium, at a gap, at a new
direction; a line where the text goes elsewhere, or at a gap that is wide enough for a column of a table.

    T o t a l ␣ 9 . 5 0 ↵        runs: no blank and no turn inside        words: runs, cut at gaps        lines

Where the characters of a run go on to the right, which nearly all do, gaps are found for all runs at once; a run that
goes back on itself, leaves its height or runs up the page is walked through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from vertebra.page.geometry import Box
from vertebra.page.page import Line, Word, line_of
from vertebra.page.pdf.characters import Characters

GAP = 3.0
"""Points between two characters of different words, where no blank says it."""
COLUMN = 2.0
"""Font sizes between two words of different lines on the same height."""
_box = partial(tuple.__new__, Box)
"""A box of four numbers, by the way that takes a third of the time."""
_SPACE = np.array([chr(code).isspace() for code in range(0x3002)])
"""Of every code, whether it is a blank; all from the last one on are none."""


@dataclass(frozen=True, eq=False)
class Words:
    """The words of a page, an entry each."""

    texts: list[str]
    box: np.ndarray
    """[4, N]: left, top, right, bottom."""
    turn: np.ndarray
    size: np.ndarray
    line: np.ndarray
    """How many ends of lines pdfium has put before it."""

    def at(self, places: np.ndarray) -> Words:
        """Some of them."""
        texts = [self.texts[n] for n in places.tolist()]
        return Words(texts, self.box[:, places], self.turn[places], self.size[places], self.line[places])


def words(found: Characters) -> Words:
    """Words in order."""
    codes = np.frombuffer(found.text.encode("utf-32-le"), "<u4").astype(np.int64)
    blank = _SPACE[np.minimum(codes, len(_SPACE) - 1)]
    here = np.flatnonzero(~blank)
    if not len(here):
        return Words([], np.zeros((4, 0)), *(np.zeros(0, np.int64) for _ in range(3)))
    starts = _starts(found, here)
    ends = np.append(starts[1:], len(here))
    first, last = here[starts], here[ends - 1]
    left, right = np.minimum.reduceat(found.left[here], starts), np.maximum.reduceat(found.right[here], starts)
    top, bottom = np.minimum.reduceat(found.top[here], starts), np.maximum.reduceat(found.bottom[here], starts)
    # a slanted last letter leans over the blank behind it: the word ends with its advance
    after = np.minimum(last + 1, len(codes) - 1)
    drawn = blank[after] & ~found.generated[after] & (found.turn[after] == 0) & (found.turn[first] == 0)
    leans = drawn & (left < found.left[after]) & (found.left[after] < right)
    right = np.where(leans, found.left[after], right)
    texts = [found.text[start:end] for start, end in zip(first.tolist(), (last + 1).tolist(), strict=True)]
    line = np.cumsum((codes == 10) | (codes == 13))[first]
    return Words(texts, np.stack([left, top, right, bottom]), found.turn[first], found.size[first], line)


def _starts(found: Characters, here: np.ndarray) -> np.ndarray:
    """Which of the characters that are no blanks (`here`) begin a word."""
    left, top, right, turn = (vector[here] for vector in (found.left, found.top, found.right, found.turn))
    begins = np.ones(len(here), bool)
    begins[1:] = (here[1:] != here[:-1] + 1) | (turn[1:] != turn[:-1])
    runs = np.flatnonzero(begins)
    goes_on = np.ones(len(here), bool)
    goes_on[1:] = (left[1:] >= left[:-1]) & (right[1:] >= right[:-1])
    level = np.maximum.reduceat(top, runs) - np.minimum.reduceat(top, runs) <= GAP
    plain = np.logical_and.reduceat(goes_on | begins, runs) & level & (turn[runs] % 180 == 0)
    of = np.cumsum(begins) - 1
    begins[1:] |= plain[of[1:]] & (left[1:] - right[:-1] > GAP)
    ends = np.append(runs[1:], len(here))
    boxes = None
    for run in np.flatnonzero(~plain).tolist():
        boxes = np.stack([found.left, found.top, found.right, found.bottom], 1)[here] if boxes is None else boxes
        start, end = int(runs[run]), int(ends[run])
        for at in _walked(boxes[start:end].tolist(), bool(turn[start] % 180)):
            begins[start + at] = True
    return np.flatnonzero(begins)


def _walked(boxes: list[list[float]], upright: bool) -> list[int]:
    """Which characters of a run begin a word, each held against all of the word before it."""
    made = []
    word = list(boxes[0])
    for at, (left, top, right, bottom) in enumerate(boxes[1:], 1):
        across = max(left - word[2], word[0] - right)
        down = max(top - word[3], word[1] - bottom)
        touching = (
            down <= GAP and abs(left - word[0]) <= GAP if upright else across <= GAP and abs(top - word[1]) <= GAP
        )
        if touching:
            word = [min(word[0], left), min(word[1], top), max(word[2], right), max(word[3], bottom)]
        else:
            made.append(at)
            word = [left, top, right, bottom]
    return made


def lines(found: Characters, *, inside: tuple[float, float]) -> list[Line]:
    """Lines of a page of a size; what was drawn outside of it is nobody's to see, and left out."""
    made = words(found)
    left, top, right, bottom = made.box
    out = (right <= 0) | (bottom <= 0) | (left >= inside[0]) | (top >= inside[1])
    if out.any():
        made = made.at(np.flatnonzero(~out))
    if not made.texts:
        return []
    begins = np.ones(len(made.texts), bool)
    begins[1:] = (made.line[1:] != made.line[:-1]) | ~_same_line(made)
    starts = np.flatnonzero(begins)
    all_words = list(map(Word, made.texts, _boxes(made.box)))
    low, high = np.minimum.reduceat(made.box[:2], starts, axis=1), np.maximum.reduceat(made.box[2:], starts, axis=1)
    ends = [*starts[1:].tolist(), len(all_words)]
    around = _boxes(np.concatenate([low, high]))
    return [line_of(all_words[start:end], box) for start, end, box in zip(starts.tolist(), ends, around, strict=True)]


def _boxes(edges: np.ndarray) -> Iterator[Box]:
    """[4, N] as boxes."""
    return map(_box, zip(*edges.tolist(), strict=True))


def _same_line(made: Words) -> np.ndarray:
    """Of every word but the first, whether it goes on with the line of the word before it."""
    left, top, right, bottom = made.box
    upright = made.turn[:-1] % 180 != 0
    across, shared, high = _beside(left, right, top, bottom)
    if upright.any():
        turned = _beside(top, bottom, left, right)
        across, shared, high = (np.where(upright, b, a) for a, b in zip((across, shared, high), turned, strict=True))
    size = np.maximum(np.maximum(made.size[:-1], made.size[1:]), 1.0)
    return (made.turn[1:] == made.turn[:-1]) & (shared >= 0.5 * high) & (across <= COLUMN * size)


def _beside(
    start: np.ndarray, end: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of neighbors: the gap along their line, what they share across it, and the lower one's height."""
    gap = np.maximum(start[1:] - end[:-1], start[:-1] - end[1:])
    shared = np.minimum(high[:-1], high[1:]) - np.maximum(low[:-1], low[1:])
    return gap, shared, np.minimum(high[:-1] - low[:-1], high[1:] - low[1:])
