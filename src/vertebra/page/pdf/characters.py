"""The characters of a PDF page with their places as the reader sees the page: from the top left, rotation and crop applied.

PDF space has its origin at the bottom left and knows nothing of /Rotate, which pdfium applies to sizes and pictures alone:

    rotation 0    (l, H-t, r, H-b)        90   (b, l, t, r)
    rotation 180  (W-r, b, W-l, t)        270  (H-t, W-r, H-b, W-l)       W, H: of the crop box, unrotated

A character's box is as wide as its advance and as high as its font's size, from the font's descent up: the box that
pdfminer and pdfplumber give it.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

INVISIBLE = 3
_BLANKS = (9, 10, 13, 32)
_OWNER = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_HYPHENS = (0x2, 0xFFFE)
"""What pdfium gives for a hyphen that breaks a word at a line's end."""


@dataclass(slots=True)  # not frozen: a page has thousands, and a frozen one takes three times as long to make
class Character:
    """One character; `turn` is the direction of its text on the shown page, 0, 90, 180 or 270 degrees clockwise."""

    text: str
    left: float
    top: float
    right: float
    bottom: float
    turn: int
    size: float
    """Of its font, in points."""
    generated: bool
    """A blank or a line's end that pdfium put in: nothing was drawn."""
    visible: bool


def characters(page: Any) -> list[Character]:
    """All characters of a page, in pdfium's order, which is that of reading for right-to-left scripts too."""
    import pypdfium2.raw as raw

    text = page.get_textpage()
    try:
        handle, count, rotation = text.raw, text.count_chars(), page.get_rotation()
        place = _placing(page, rotation)
        rect, matrix, found = raw.FS_RECTF(), raw.FS_MATRIX(), []
        into = ctypes.byref(rect)
        last_owner, size, visible, turn = -1, 0.0, True, 0
        unicode, loose, generated = raw.FPDFText_GetUnicode, raw.FPDFText_GetLooseCharBox, raw.FPDFText_IsGenerated
        # as a number: comparing pointers costs more than all the rest
        owner_of = ctypes.cast(raw.FPDFText_GetTextObject, _OWNER)
        for n in range(count):
            code = unicode(handle, n)
            if code in _BLANKS and generated(handle, n) == 1:
                found.append(Character("\n" if code in (10, 13) else " ", 0, 0, 0, 0, turn, size, True, visible))
                continue
            owner = owner_of(handle, n) or 0
            if owner != last_owner:
                last_owner = owner
                raw.FPDFText_GetMatrix(handle, n, matrix)
                size = raw.FPDFText_GetFontSize(handle, n) * math.hypot(matrix.c, matrix.d)
                mode = raw.FPDFTextObj_GetTextRenderMode(raw.FPDFText_GetTextObject(handle, n)) if owner else 0
                visible = mode != INVISIBLE
                turn = (round(math.degrees(raw.FPDFText_GetCharAngle(handle, n)) / 90) * 90 + rotation) % 360
            loose(handle, n, into)
            left, top, right, bottom = place(rect.left, rect.bottom, rect.right, rect.top)
            if turn == 0 and size > 0:
                top = bottom - size
            else:
                left, top, right, bottom = _high((left, top, right, bottom), turn, size)
            found.append(Character(_text(code), left, top, right, bottom, turn, size, False, visible))
    finally:
        text.close()
    return _paired(found)


def _text(code: int) -> str:
    if code in _HYPHENS:
        return "-"
    return chr(code) if code <= 0x10FFFF else "\ufffd"


def _high(box: tuple[float, float, float, float], turn: int, size: float) -> tuple[float, float, float, float]:
    """As high as the font, from the side on which the text stands."""
    left, top, right, bottom = box
    if size <= 0:
        return box
    if turn == 0:
        return left, bottom - size, right, bottom
    if turn == 180:
        return left, top, right, top + size
    if turn == 90:  # read downwards: it stands on its left
        return left, top, left + size, bottom
    return right - size, top, right, bottom


def _placing(page: Any, rotation: int) -> Any:
    left, bottom, right, top = page.get_cropbox()
    x0, y0 = min(left, right), min(bottom, top)
    width, height = abs(right - left), abs(top - bottom)

    def place(left: float, bottom: float, right: float, top: float) -> tuple[float, float, float, float]:
        left, right, bottom, top = left - x0, right - x0, bottom - y0, top - y0
        if rotation == 0:
            return left, height - top, right, height - bottom
        if rotation == 90:
            return bottom, left, top, right
        if rotation == 180:
            return width - right, bottom, width - left, top
        return height - top, width - right, height - bottom, width - left

    return place


def _paired(found: list[Character]) -> list[Character]:
    """Halves of a surrogate pair as one character; a half alone is a replacement character."""
    if not any("\ud800" <= one.text <= "\udfff" for one in found):
        return found
    made: list[Character] = []
    skip = False
    for one, following in zip(found, [*found[1:], None], strict=True):
        if skip:
            skip = False
            continue
        text = one.text
        if "\ud800" <= text <= "\udbff" and following is not None and "\udc00" <= following.text <= "\udfff":
            text, skip = (text + following.text).encode("utf-16", "surrogatepass").decode("utf-16"), True
        elif "\ud800" <= text <= "\udfff":
            text = "\ufffd"
        made.append(
            Character(text, one.left, one.top, one.right, one.bottom, one.turn, one.size, one.generated, one.visible)
        )
    return made
