"""Reading order: as given, row by row from the top, or column by column.

    given      as the source has it
    top        rows from the top; in a row from the left, or from the right where its letters run that way
    columns    the page is cut at white bands, again and again: columns one after the other, each from its top

Lines without a box keep their place behind the line that stood before them. Texts are kept as they are: right-to-left
text is in the order in which it is read, whatever side its line begins on.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from vertebra.errors import UnknownNameError
from vertebra.page.geometry import Box

ORDERS = ("given", "top", "columns")
SAME_ROW = 0.5
"""Share of the lower box's height that two boxes of one row have in common."""


def in_order(boxes: Sequence[Box | None], text: str, order: str) -> list[int]:
    """The numbers of lines in reading order, from their boxes and the page's text."""
    if order not in ORDERS:
        raise UnknownNameError("reading order", order, ORDERS)
    if order == "given":
        return list(range(len(boxes)))
    placed = [(number, box) for number, box in enumerate(boxes) if box is not None]
    right = right_to_left(text)
    found = by_rows(placed, right) if order == "top" else by_columns(placed, right)
    followers: dict[int, list[int]] = {}
    last = -1
    for number, box in enumerate(boxes):
        if box is None:
            followers.setdefault(last, []).append(number)
        else:
            last = number
    numbers = followers.get(-1, [])
    for number in found:
        numbers = [*numbers, number, *followers.get(number, [])]
    return numbers


def right_to_left(text: str) -> bool:
    """Whether most letters of a text run from right to left."""
    right = left = 0
    for letter in text:
        kind = unicodedata.bidirectional(letter)
        right += kind in ("R", "AL")
        left += kind == "L"
    return right > left


def rows_of(placed: Sequence[tuple[int, Box]]) -> list[list[tuple[int, Box]]]:
    """Boxes that stand beside each other, rows from the top."""
    rows: list[list[tuple[int, Box]]] = []
    for one in sorted(placed, key=lambda one: (one[1].center[1], one[1].left, one[0])):
        box = one[1]
        if rows:
            # the row's last but not its union: a slanted row would swallow the next one
            beside = rows[-1][-1][1]
            shared = min(box.bottom, beside.bottom) - max(box.top, beside.top)
            if shared >= SAME_ROW * min(box.height, beside.height) and shared > 0:
                rows[-1].append(one)
                continue
        rows.append([one])
    return rows


def by_rows(placed: Sequence[tuple[int, Box]], right: bool = False) -> list[int]:
    """Numbers, row by row."""
    found = []
    for row in rows_of(placed):
        row = sorted(row, key=lambda one: (-one[1].right if right else one[1].left, one[0]))
        found += [number for number, _ in row]
    return found


def by_columns(placed: Sequence[tuple[int, Box]], right: bool = False) -> list[int]:
    """Numbers, column by column: cut at the widest white band, and each part again."""
    if len(placed) < 2:
        return [number for number, _ in placed]
    heights = sorted(box.height for _, box in placed)
    tall = heights[len(heights) // 2] or 1.0
    across, across_gap = _cut(placed, 1)
    down, down_gap = _cut(placed, 0)
    # a column's gap must be a gap between words' at least; between equal bands the horizontal one goes first
    if down is not None and down_gap >= 0.5 * tall and (across is None or down_gap > 0.6 * across_gap):
        one, other = down
        return [*by_columns(other if right else one, right), *by_columns(one if right else other, right)]
    if across is not None:
        return [*by_columns(across[0], right), *by_columns(across[1], right)]
    return by_rows(placed, right)


def _cut(placed: Sequence[tuple[int, Box]], axis: int) -> tuple[tuple[list, list] | None, float]:
    """The boxes on either side of the widest empty band across an axis, and its width."""
    ordered = sorted(placed, key=lambda one: (one[1][axis], one[0]))
    end, widest, at = ordered[0][1][axis + 2], 0.0, 0
    for number, (_, box) in enumerate(ordered[1:], 1):
        if box[axis] - end > widest:
            widest, at = box[axis] - end, number
        end = max(end, box[axis + 2])
    return ((ordered[:at], ordered[at:]), widest) if at else (None, 0.0)
