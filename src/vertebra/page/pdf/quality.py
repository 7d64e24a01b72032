"""Whether a text layer is worth reading, and if not, why: in words that are shown to whoever asked for the page."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Any

from vertebra.page.page import Page

MOST_BROKEN = 0.05
"""Share of characters that stand for none: control, private use, replacement."""
LEAST_LETTERS = 0.5
"""Share of letters and digits among what is drawn; English prose has 0.97, a page of amounts 0.75."""
ENOUGH = 4
"""Characters from which on a share says something."""
COVERED = 0.6
"""A page of which a picture covers this share may be a scan …"""
FEW = 20
"""… if it has fewer characters than these anywhere, as of a stamp …"""
STAMP, EDGE = 200, 0.1
"""… or fewer than these, all of them within this share of its height from the top or the foot: what a scanner's program writes
there, a number of a page, where it was downloaded."""


def why_garbage(page: Page) -> str | None:
    """Why OCR is due: no text, or text that means nothing; None where the text layer will do."""
    # a page has thousands of characters, and a hundred different ones
    letters = Counter("".join("".join(line.text.split()) for line in page.lines))
    if not letters:
        return "it has no text layer"
    total, kinds = letters.total(), {letter: unicodedata.category(letter) for letter in letters}
    broken = sum(
        count for letter, count in letters.items() if kinds[letter] in ("Cc", "Co", "Cn", "Cs") or letter == "\ufffd"
    )
    if broken > MOST_BROKEN * total:
        return f"its text layer is garbage: {broken} of {total} characters are control or replacement characters"
    good = sum(count for letter, count in letters.items() if kinds[letter][0] in "LNM")
    if total >= ENOUGH and good < LEAST_LETTERS * total:
        return f"its text layer is garbage: {good} of {total} characters are letters or digits"
    return None


def why_scan(pdf_page: Any, page: Page) -> str | None:
    """The same of a page that is a picture with a few words on it."""
    import pypdfium2.raw as raw

    if page.size is None or not _is_stamp(page, page.size[1]):
        return None
    area = page.size[0] * page.size[1]
    for one in pdf_page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        left, bottom, right, top = one.get_bounds()
        if (right - left) * (top - bottom) >= COVERED * area:
            return "it is a picture with hardly any text on it"
    return None


def _is_stamp(page: Page, height: float) -> bool:
    """Whether all text of a page is what somebody put on a picture of it."""
    total = sum(len(line.text) for line in page.lines)
    if total < FEW or total >= STAMP:
        return total < FEW
    boxes = [line.box for line in page.lines if line.box is not None]
    return all(box.bottom <= EDGE * height or box.top >= (1 - EDGE) * height for box in boxes)
