"""Boxes that cannot be: found, named by their line, and refused or mended with a report; sources that count from below
are turned over here. Of formats it knows nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from vertebra.errors import ConfigError, DataError
from vertebra.page.geometry import Box
from vertebra.page.units import Origin, Size, unit_of

OnBad = Literal["refuse", "repair"]
SLACK = 0.002
"""Share of a side by which a box may leave the page as rounding: it is clipped without a word."""
QUOTED = 5


def required_size(size: Any, unit: str, where: str) -> Size | None:
    """Width and height as two positive numbers; only relative units do without."""
    if size is None:
        if unit_of(unit).whole is None:
            raise DataError(
                f"{where} does not give its size, and boxes in `{unit}` mean nothing without; give `size=(width, height)` "
                "or `image=`, its picture"
            )
        return None
    try:
        width, height = (float(number) for number in size)
    except (TypeError, ValueError):
        raise DataError(f"{where} has the size {size!r:.60}; expected (width, height)") from None
    if not (math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0):
        raise DataError(f"{where} has the size {width:g} × {height:g}; expected two numbers above 0")
    return width, height


def checked(
    lines: Sequence[Any], extent: Size | None, *, origin: Origin, on_bad: OnBad, where: str
) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Lines with sound boxes (four finite numbers in order, inside the page, y from the top), and what was mended.

    `refuse` raises one error with all faults; `repair` sorts swapped corners, clips what leaves the page, takes away
    boxes of no number or wholly outside, and reports each.
    """
    if on_bad not in ("refuse", "repair"):
        raise ConfigError(f"on_bad is {on_bad!r}; expected `refuse` or `repair`")
    if origin not in ("top", "bottom"):
        raise ConfigError(f"origin is {origin!r}; expected `top` or `bottom`")
    if origin == "bottom" and extent is None:
        raise DataError(f"{where} counts from the bottom and has no size; give `size=(width, height)`")
    made, faults = [], list[str]()
    for number, line in enumerate(lines):
        at = f"line {number}"
        if origin == "top" and _fine(line, extent) and all(_fine(word, extent) for word in line.words):
            made.append(line)  # nearly all are: copying them costs more than reading a PDF's text
            continue
        words = tuple(
            replace(word, **_place(word, extent, origin, faults, f"{at}, word {n}"))
            for n, word in enumerate(line.words)
        )
        made.append(replace(line, **_place(line, extent, origin, faults, at), words=words))
    if faults and on_bad == "refuse":
        raise DataError(
            f"{where} has {len(faults)} boxes that cannot be: {_some(faults)}; mend the source, or let them be mended "
            "(on_bad='repair'). A wrong unit or origin looks like this too"
        )
    return tuple(made), tuple(f"mended: {fault}" for fault in faults)


def _fine(one: Any, extent: Size | None) -> bool:
    """Whether there is nothing to look at closer; a NaN fails every comparison."""
    box = one.box
    if type(box) is not Box or one.quad is not None or extent is None:
        return False
    left, top, right, bottom = box
    return bool(0 <= left <= right <= extent[0] and 0 <= top <= bottom <= extent[1])


def _some(faults: Sequence[str]) -> str:
    rest = len(faults) - QUOTED
    return "; ".join(faults[:QUOTED]) + (f" and {rest} more" if rest > 0 else "")


def _place(one: Any, extent: Size | None, origin: Origin, faults: list[str], at: str) -> dict[str, Any]:
    box = None if one.box is None else _four(one.box, at)
    quad = one.quad
    if origin == "bottom" and extent is not None:
        if box is not None:
            box = Box(box.left, extent[1] - box.bottom, box.right, extent[1] - box.top)
            box = Box(box.left, box.bottom, box.right, box.top) if box.top > box.bottom else box
        if quad is not None:
            quad = tuple((x, extent[1] - y) for x, y in quad)
    if box is None:
        return {"box": None, "quad": None}
    sound, fault = _sound(box, extent)
    if fault:
        faults.append(f"{at} ({one.text[:20]!r}) {fault}")
    if sound is None or (quad is not None and not all(math.isfinite(n) for point in quad for n in point)):
        quad = None
    return {"box": sound, "quad": quad}


def _four(box: Any, at: str) -> Box:
    try:
        left, top, right, bottom = (number if isinstance(number, (int, float)) else float(number) for number in box)
    except (TypeError, ValueError):
        raise DataError(f"{at} has the box {box!r:.60}; expected four numbers: left, top, right, bottom") from None
    return Box(left, top, right, bottom)


def _sound(box: Box, extent: Size | None) -> tuple[Box | None, str]:
    """The mended box, and what was wrong with it."""
    if not all(math.isfinite(number) for number in box):
        return None, f"has no numbers: {_shown(box)}"
    fault = ""
    if box.left > box.right or box.top > box.bottom:
        fault = f"is swapped: {_shown(box)}"
        box = Box(
            min(box.left, box.right), min(box.top, box.bottom), max(box.left, box.right), max(box.top, box.bottom)
        )
    if extent is None:
        return box, fault
    width, height = extent
    over = max(-box.left / width, -box.top / height, box.right / width - 1, box.bottom / height - 1)
    if over <= 0:
        return box, fault
    if box.left >= width or box.top >= height or box.right <= 0 or box.bottom <= 0:
        if over > SLACK:
            return None, f"lies outside of {width:g} × {height:g}: {_shown(box)}"
    elif over > SLACK:
        fault = fault or f"leaves the page of {width:g} × {height:g}: {_shown(box)}"
    return Box(
        min(max(box.left, 0), width), min(max(box.top, 0), height),
        min(max(box.right, 0), width), min(max(box.bottom, 0), height),
    ), fault  # fmt: skip


def _shown(box: Box) -> str:
    return "(" + ", ".join(f"{number:g}" for number in box) + ")"
