"""`drawn_page`: one page of a number and a seed, always the same on a machine with the same fonts."""

from __future__ import annotations

from typing import Any

import numpy as np

from vertebra.errors import UnknownNameError
from vertebra.page.page import Page
from vertebra.page.paper.ink import Wear, leaning, pictured
from vertebra.page.paper.joining import joined
from vertebra.page.paper.receipts import SHEETS, Style, sheet_of

KINDS = (*SHEETS, "mixed")


def drawn_page(
    kind: str = "mixed",
    number: int = 0,
    seed: int = 0,
    *,
    style: Style | None = None,
    wear: Wear | None = None,
    picture: bool = False,
    slant: float = 0.0,
    joining: float = 0.0,
) -> Page:
    """A receipt or a form; `mixed`: in turns. `facts` say what it holds: `fields`, `sorts`, `evidence` (lines of each).

    `picture`: with its image, slanted and worn as `wear` allows, and boxes to match. `slant`: without a picture, boxes as
    if it had been turned by up to so many degrees. `joining`: the share of names that are one line with the value beside them.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of drawn page", kind, KINDS)
    chosen = tuple(SHEETS)[number % len(SHEETS)] if kind == "mixed" else kind
    draw: Any = np.random.default_rng([seed, number])
    sheet = sheet_of(chosen, draw, style)
    if picture:
        page = pictured(sheet, draw, wear)
    else:
        page = leaning(sheet.page(), float(draw.uniform(-slant, slant))) if slant else sheet.page()
    return joined(page, draw, joining) if joining else page
