"""Lines of a drawn page joined as OCR joins them: a name and its value in one row, read as one line of two words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vertebra.page.geometry import around, corners, union
from vertebra.page.order import SAME_ROW
from vertebra.page.page import Line, Page


def joined(page: Page, draw: Any, share: float) -> Page:
    """The page with about this share of names joined to their values; the lines that hold a value (`evidence`) follow."""
    lines: list[Line] = []
    now: dict[int, int] = {}
    for number, line in enumerate(page.lines):
        if lines and _one_row(lines[-1], line) and draw.random() < share:
            lines[-1] = _both(lines[-1], line)
        else:
            lines.append(line)
        now[number] = len(lines) - 1
    evidence = {name: [now[at] for at in where] for name, where in page.facts["evidence"].items()}
    return replace(page, lines=tuple(lines), facts={**page.facts, "evidence": evidence})


def _one_row(name: Line, value: Line) -> bool:
    """Whether a value stands beside its name."""
    if value.label is None or name.label != f"{value.label}.key" or name.box is None or value.box is None:
        return False
    high = min(name.box.height, value.box.height)
    across = min(name.box.bottom, value.box.bottom) - max(name.box.top, value.box.top)
    return across > SAME_ROW * high and name.box.right < value.box.left


def _both(name: Line, value: Line) -> Line:
    """One line, which still is the name's."""
    assert name.box is not None
    assert value.box is not None
    quad = None
    if name.quad is not None or value.quad is not None:
        one, other = name.quad or corners(name.box), value.quad or corners(value.box)
        quad = (one[0], other[1], other[2], one[3])
    box = union([name.box, value.box]) if quad is None else around(quad)
    return replace(name, text=f"{name.text} {value.text}", box=box, quad=quad, words=(*name.words, *value.words))
