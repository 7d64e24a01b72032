"""Characters, words and lines of a PDF page the slow way: one call, one object and one comparison after the other."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vertebra.page.geometry import Box
from vertebra.page.page import Line, Word, line_of
from vertebra.page.pdf.characters import INVISIBLE
from vertebra.page.pdf.grouping import COLUMN, GAP


@dataclass
class Character:
    text: str
    left: float = 0
    top: float = 0
    right: float = 0
    bottom: float = 0
    turn: int = 0
    size: float = 0
    generated: bool = False
    visible: bool = True


def characters(page: Any) -> list[Character]:
    import pypdfium2.raw as raw

    text = page.get_textpage()
    handle, rotation, found = text.raw, page.get_rotation(), []
    rect, matrix = raw.FS_RECTF(), raw.FS_MATRIX()
    for n in range(text.count_chars()):
        code = raw.FPDFText_GetUnicode(handle, n)
        if raw.FPDFText_IsGenerated(handle, n) == 1 and code in (9, 10, 13, 32):
            found.append(Character("\n" if code in (10, 13) else " ", generated=True))
            continue
        raw.FPDFText_GetMatrix(handle, n, matrix)
        size = raw.FPDFText_GetFontSize(handle, n) * math.hypot(matrix.c, matrix.d)
        mode = raw.FPDFTextObj_GetTextRenderMode(raw.FPDFText_GetTextObject(handle, n))
        turn = (round(math.degrees(raw.FPDFText_GetCharAngle(handle, n)) / 90) * 90 + rotation) % 360
        raw.FPDFText_GetLooseCharBox(handle, n, ctypes.byref(rect))
        box = placed(page, rotation, rect)
        if size > 0:
            box = high(box, turn, size)
        letter = "-" if code in (0x2, 0xFFFE) else chr(code)
        found.append(Character(letter, *box, turn, size, False, mode != INVISIBLE))
    text.close()
    return found


def placed(page: Any, rotation: int, rect: Any) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = page.get_cropbox()
    width, height = x1 - x0, y1 - y0
    left, right, bottom, top = rect.left - x0, rect.right - x0, rect.bottom - y0, rect.top - y0
    return {
        0: (left, height - top, right, height - bottom),
        90: (bottom, left, top, right),
        180: (width - right, bottom, width - left, top),
        270: (height - top, width - right, height - bottom, width - left),
    }[rotation]


def high(box: tuple[float, float, float, float], turn: int, size: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return {
        0: (left, bottom - size, right, bottom),
        90: (left, top, left + size, bottom),
        180: (left, top, right, top + size),
        270: (right - size, top, right, bottom),
    }[turn]


@dataclass
class PlainWord(Character):
    def box(self) -> Box:
        return Box(self.left, self.top, self.right, self.bottom)


def words(found: Iterable[Character]) -> Iterator[PlainWord | None]:
    """Words in order, and None where a line ends."""
    word: PlainWord | None = None
    for one in found:
        if one.text.isspace():
            if word is not None:
                if not one.generated and word.turn == one.turn == 0 and word.left < one.left < word.right:
                    word.right = one.left
                yield word
                word = None
            if one.text in "\r\n":
                yield None
        elif word is not None and one.turn == word.turn and touching(word, one):
            word.text += one.text
            word.left, word.right = min(word.left, one.left), max(word.right, one.right)
            word.top, word.bottom = min(word.top, one.top), max(word.bottom, one.bottom)
        else:
            if word is not None:
                yield word
            word = PlainWord(one.text, one.left, one.top, one.right, one.bottom, one.turn, one.size)
    if word is not None:
        yield word


def touching(word: Character, one: Character) -> bool:
    across = max(one.left - word.right, word.left - one.right)
    down = max(one.top - word.bottom, word.top - one.bottom)
    if word.turn % 180:
        return down <= GAP and abs(one.left - word.left) <= GAP
    return across <= GAP and abs(one.top - word.top) <= GAP


def lines(found: Iterable[Character], inside: tuple[float, float]) -> list[Line]:
    made: list[Line] = []
    row: list[PlainWord] = []
    for word in [*words(found), None]:
        if word is not None and (
            word.right <= 0 or word.bottom <= 0 or word.left >= inside[0] or word.top >= inside[1]
        ):
            continue
        if row and (word is None or not same_line(row[-1], word)):
            made.append(line_of([Word(one.text, one.box()) for one in row]))
            row = []
        if word is not None:
            row.append(word)
    return made


def same_line(last: Character, word: Character) -> bool:
    if last.turn != word.turn:
        return False
    across = max(word.left - last.right, last.left - word.right)
    shared = min(last.bottom, word.bottom) - max(last.top, word.top)
    high = min(last.bottom - last.top, word.bottom - word.top)
    if last.turn % 180:
        across = max(word.top - last.bottom, last.top - word.bottom)
        shared = min(last.right, word.right) - max(last.left, word.left)
        high = min(last.right - last.left, word.right - word.left)
    return shared >= 0.5 * high and across <= COLUMN * max(last.size, word.size, 1.0)
