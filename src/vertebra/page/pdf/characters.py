"""The characters of a PDF page with their places as the reader sees the page: from the top left, rotation and crop applied.

PDF space has its origin at the bottom left and knows nothing of /Rotate, which pdfium applies to sizes and pictures alone:

    rotation 0    (l, H-t, r, H-b)        90   (b, l, t, r)
    rotation 180  (W-r, b, W-l, t)        270  (H-t, W-r, H-b, W-l)       W, H: of the crop box, unrotated

A character's box is as wide as its advance and as high as its font's size, from the font's descent up: the box that
pdfminer and pdfplumber give it. A page has thousands of characters, and a call into pdfium costs more than all that is
done with its answer: so there are two for a character and three for an object of text, and the rest is arrays.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import repeat
from typing import Any

import numpy as np

INVISIBLE = 3
_BLANK = np.isin(np.arange(34), (9, 10, 13, 32))
"""Whether a code is one of those that pdfium puts in; all from 33 on are as the last."""
_HYPHENS = (0x2, 0xFFFE)
"""What pdfium gives for a hyphen that breaks a word at a line's end."""
_REPLACEMENT, _LARGEST = 0xFFFD, 0x10FFFF


@dataclass(frozen=True, eq=False)
class Characters:
    """The characters of a page, in pdfium's order; each vector has an entry for every letter of `text`."""

    text: str
    left: np.ndarray
    top: np.ndarray
    right: np.ndarray
    bottom: np.ndarray
    turn: np.ndarray
    """The direction of its text on the shown page: 0, 90, 180 or 270 degrees clockwise."""
    size: np.ndarray
    """Of its font, in points."""
    generated: np.ndarray
    """A blank or a line's end that pdfium put in: nothing was drawn."""
    visible: np.ndarray

    def __len__(self) -> int:
        return len(self.text)


_VECTORS = tuple(one.name for one in fields(Characters) if one.name != "text")


def characters(page: Any) -> Characters:
    """All characters of a page, in pdfium's order, which is that of reading for right-to-left scripts too."""
    text = page.get_textpage()
    try:
        count = text.count_chars()
        pointer = ctypes.cast(text.raw, ctypes.c_void_p).value
        codes = _codes(text.raw, pointer, count)
        generated = np.zeros(count, bool)
        blanks = np.flatnonzero(_BLANK[np.minimum(codes, 33)])
        generated[blanks] = _each("FPDFText_IsGenerated", pointer, blanks.tolist()) == 1
        size, visible, angle = _of_objects(pointer, ~generated)
        places = _filled("FPDFText_GetLooseCharBox", pointer, range(count), 4)
    finally:
        text.close()
    rotation = page.get_rotation()
    turn = (np.rint(np.degrees(angle) / 90).astype(np.int64) * 90 + rotation) % 360
    # FS_RECTF is left, top, right, bottom
    box = _high(placed(page, rotation, places[:, 0], places[:, 3], places[:, 2], places[:, 1]), turn, size)
    box[:, generated] = 0
    left, top, right, bottom = box
    text = _text(codes, generated)
    return _paired(codes, Characters(text, left, top, right, bottom, turn, size, generated, visible))


@lru_cache
def _function(name: str, gives: Any, *arguments: Any) -> Any:
    """One of pdfium's, for plain numbers, with the interpreter's lock kept: objects as pointers, types that are looked at
    and the lock let go and taken again cost more than the call itself."""
    import pypdfium2.raw as raw

    return ctypes.cast(getattr(raw, name), ctypes.PYFUNCTYPE(gives, *arguments))


def _each(name: str, pointer: int | None, numbers: Sequence[int], gives: Any = ctypes.c_int) -> np.ndarray:
    """What a function says of some characters; the loop runs in C."""
    call = _function(name, gives)
    made = map(call, repeat(ctypes.c_void_p(pointer)), numbers)
    return np.fromiter(made, np.float64 if gives is ctypes.c_double else np.int64, len(numbers))


def _filled(name: str, pointer: int | None, numbers: Sequence[int], width: int) -> np.ndarray:
    """[N, width] numbers that a function writes for some characters."""
    made = np.zeros((len(numbers), width), np.float32)
    call = _function(name, ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    start, step = made.ctypes.data, 4 * width
    deque(map(call, repeat(pointer), numbers, range(start, start + len(made) * step, step)), maxlen=0)
    return made.astype(np.float64)


def _codes(handle: Any, pointer: Any, count: int) -> np.ndarray:
    """The code of every character. Its own call for each takes as long as all else together, so they come as one text
    wherever that has a unit for each: no half of a pair, and none that pdfium leaves out of texts."""
    import pypdfium2.raw as raw

    made = np.zeros(count + 1, np.uint16)
    got = raw.FPDFText_GetText(handle, 0, count, made.ctypes.data_as(ctypes.POINTER(ctypes.c_ushort))) if count else 1
    found = made[:count].astype(np.int64)
    if got == count + 1 and not ((found == 0) | _halves(found)).any():
        return found
    return _each("FPDFText_GetUnicode", pointer, range(count), ctypes.c_uint)


def _of_objects(pointer: Any, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(size, visible, angle) of each character, asked once for each object of text; one that was not drawn has those of
    the character before it."""
    size, visible, angle = np.zeros(len(drawn)), np.ones(len(drawn), bool), np.zeros(len(drawn))
    at = np.flatnonzero(drawn)
    if not len(at):
        return size, visible, angle
    owner = _each("FPDFText_GetTextObject", pointer, at.tolist(), ctypes.c_size_t)
    first = np.concatenate([[True], owner[1:] != owner[:-1]])
    asked = at[first].tolist()
    matrix = _filled("FPDFText_GetMatrix", pointer, asked, 6)
    sizes = _each("FPDFText_GetFontSize", pointer, asked, ctypes.c_double) * np.hypot(matrix[:, 2], matrix[:, 3])
    mode = _function("FPDFTextObj_GetTextRenderMode", ctypes.c_int, ctypes.c_void_p)
    modes = np.array([mode(one) if one else 0 for one in owner[first].tolist()])
    numbers = np.cumsum(first)  # of the object of each drawn character, from 1 on
    of = np.zeros(len(drawn), np.int64)
    of[at] = numbers
    of = np.maximum.accumulate(of)
    there = of > 0
    size[there], visible[there] = sizes[of[there] - 1], modes[of[there] - 1] != INVISIBLE
    angle[there] = np.arctan2(matrix[:, 2], matrix[:, 0])[of[there] - 1]
    return size, visible, angle


def placed(
    page: Any, rotation: int, left: np.ndarray, bottom: np.ndarray, right: np.ndarray, top: np.ndarray
) -> np.ndarray:
    """[4, N]: left, top, right, bottom on the page as it is shown."""
    x0, y0, x1, y1 = _shown_edges(page)
    width, height = x1 - x0, y1 - y0
    left, right, bottom, top = left - x0, right - x0, bottom - y0, top - y0
    if rotation == 0:
        return np.stack([left, height - top, right, height - bottom])
    if rotation == 90:
        return np.stack([bottom, left, top, right])
    if rotation == 180:
        return np.stack([width - right, bottom, width - left, top])
    return np.stack([height - top, width - right, height - bottom, width - left])


def _shown_edges(page: Any) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of what is shown: the crop box, as far as it lies within the media box."""
    sides = [
        (min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3]))
        for box in (page.get_cropbox(), page.get_mediabox())
    ]
    (left, bottom, right, top), media = sides
    return max(left, media[0]), max(bottom, media[1]), min(right, media[2]), min(top, media[3])


def _high(box: np.ndarray, turn: np.ndarray, size: np.ndarray) -> np.ndarray:
    """As high as the font, from the side on which the text stands; read downwards (90), it stands on its left."""
    left, top, right, bottom = box
    sized = size > 0
    return np.stack([
        np.where(sized & (turn == 270), right - size, left),
        np.where(sized & (turn == 0), bottom - size, top),
        np.where(sized & (turn == 90), left + size, right),
        np.where(sized & (turn == 180), top + size, bottom),
    ])  # fmt: skip


def _text(codes: np.ndarray, generated: np.ndarray) -> str:
    """The text, a letter a character; what pdfium put in is a blank or the end of a line."""
    codes = codes.copy()
    codes[generated] = np.where(codes[generated] <= 13, 10, 32)
    codes[codes > _LARGEST] = _REPLACEMENT
    for hyphen in _HYPHENS:
        codes[codes == hyphen] = ord("-")
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _halves(codes: np.ndarray) -> np.ndarray:
    return (codes >= 0xD800) & (codes <= 0xDFFF)


def _paired(codes: np.ndarray, found: Characters) -> Characters:
    """Halves of a surrogate pair as one character, where the first stands; a half alone is a replacement character."""
    if not _halves(codes).any():
        return found
    letters, gone = list(found.text), list[int]()
    at = 0
    while at < len(letters):
        pair = letters[at : at + 2]
        if len(pair) == 2 and "\ud800" <= pair[0] <= "\udbff" and "\udc00" <= pair[1] <= "\udfff":
            letters[at] = "".join(pair).encode("utf-16", "surrogatepass").decode("utf-16")
            gone.append(at + 1)
            at += 1
        elif "\ud800" <= pair[0] <= "\udfff":
            letters[at] = chr(_REPLACEMENT)
        at += 1
    left_out = set(gone)
    text = "".join(letter for at, letter in enumerate(letters) if at not in left_out)
    return Characters(text, *(np.delete(getattr(found, name), gone) for name in _VECTORS))
