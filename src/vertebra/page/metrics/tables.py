"""Tables: cell F1 by (row, column, text), which has no rival definition and says what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from vertebra.page.metrics.answers import plain

Cell = tuple[int, int, str]


def cell_f1(gold: Iterable[Cell], answer: Iterable[Cell]) -> float:
    """Cells of (row, column, text), texts without case and double blanks; 1 for two empty tables."""
    ours, theirs = (Counter((row, column, plain(text)) for row, column, text in cells) for cells in (gold, answer))
    total = sum(ours.values()) + sum(theirs.values())
    return 2 * sum((ours & theirs).values()) / total if total else 1.0
