"""Whether an answer points at the right place: boxes that overlap, lines that are named.

Gold evidence, where a data set has none: the lines whose text contains the answer (`lines_with`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from vertebra.page.geometry import Box
from vertebra.page.metrics.answers import plain
from vertebra.page.page import Page

HIT = 0.5
"""IoU from which on a box is found."""


def box_hits(gold: Sequence[Box], answer: Sequence[Box], least: float = HIT) -> float:
    """Share of gold boxes that a box of the answer covers with at least this IoU; 1 where there are none."""
    if not gold:
        return 1.0
    return sum(any(Box(*one).iou(Box(*other)) >= least for other in answer) for one in gold) / len(gold)


def line_f1(gold: Iterable[object], answer: Iterable[object]) -> float:
    """F1 of two sets of lines (numbers, or (page, number)); 1 where both are empty."""
    ours, theirs = set(gold), set(answer)
    total = len(ours) + len(theirs)
    return 2 * len(ours & theirs) / total if total else 1.0


def lines_with(page: Page, answer: str) -> list[int]:
    """Numbers of the lines whose text contains an answer, without case and double blanks."""
    expected = plain(answer)
    return [number for number, line in enumerate(page.lines) if expected and expected in plain(line.text)]


def word_f1(gold: str, answer: str) -> float:
    """F1 of two texts' words as multisets, without case: how much of a page OCR has read."""
    ours, theirs = Counter(plain(gold).split()), Counter(plain(answer).split())
    total = sum(ours.values()) + sum(theirs.values())
    return 2 * sum((ours & theirs).values()) / total if total else 1.0
