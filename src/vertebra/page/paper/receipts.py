"""Receipts and forms as sheets. Six pairs of a name and a value are the heart of each: the values are drawn from one and
the same distribution, so that nothing but their places says which belongs to which name.

    receipt   Total           9.50       form   Order      Room      Batch
              Tax             0.38              4711       12        305
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from vertebra.page.paper import words
from vertebra.page.paper.fonts import fonts
from vertebra.page.paper.sheet import PaperSheet, TextRun

PAIRS = 6
"""Names with values on a sheet; a guess among them is right once in six."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a sheet is drawn."""

    fonts: tuple[str, ...] = ()
    """Which; none: all that the machine has."""
    head: bool = True
    """Shop, street and date above, and goods between: lines that hold other things."""
    digits: int | None = None
    """Values are whole numbers of so many digits; None: amounts with cents, and numbers of two to five digits."""
    pairs: int = PAIRS
    """The fewest pairs of a name and a value; from there up to six, drawn for every sheet."""
    printed: bool = False
    """Fields are named as they are printed, in place of by one word for all prints: `Amount due` and not `total`."""
    alike: float = 0.0
    """The share of sheets whose values, where they have `digits`, all begin with the same one: which value it is, only what
    follows says."""
    sums: bool = False
    """Whether amounts add up, so that the largest is the total; else each is drawn for itself."""


def sheet_of(kind: str, draw: Any, style: Style | None = None) -> PaperSheet:
    """A sheet of a kind; `draw` is numpy's generator."""
    return SHEETS[kind](draw, style or Style())


def receipt(draw: Any, style: Style) -> PaperSheet:
    """A narrow page: who sold, what, and amounts in rows, names to the left and values to the right."""
    wide = int(draw.integers(380, 560))
    face, size = _face(draw, style), int(draw.integers(17, 24))
    sheet = PaperSheet(kind="receipt", size=(wide, 1))
    margin, y = int(draw.integers(16, 40)), float(draw.integers(14, 50))
    if style.head:
        y = _head(sheet, draw, face, size, y)
        for _ in range(int(draw.integers(1, 4))):
            sheet.write(TextRun(str(draw.choice(words.GOODS)), margin, y, face, size))
            sheet.write(TextRun(_amount(draw), wide - margin, y, face, size, "r"))
            y += size * 1.5
        y += size * float(draw.uniform(0.2, 1.0))
    step = size * float(draw.uniform(1.35, 2.0))
    value_at = wide - margin if draw.random() < 0.7 else wide * float(draw.uniform(0.72, 0.9))
    for name, printed, value in _amounts(draw, style):
        sheet.state(name, value, "amount")
        sheet.write(TextRun(printed, margin, y, face, size, label=name, key=True))
        sheet.write(TextRun(value, value_at, y, face, size, "r", name))
        y += step
    if style.head and draw.random() < 0.6:
        sheet.write(TextRun(str(draw.choice(words.THANKS)), wide / 2, y + size * 0.4, face, size, "m"))
        y += size * 2
    sheet.size = (wide, int(y + draw.integers(10, 60)))
    return sheet


def form(draw: Any, style: Style) -> PaperSheet:
    """Cells in a grid: in each a name, and its value below it or beside it."""
    columns = int(draw.choice([2, 3]))
    face, size = _face(draw, style), int(draw.integers(17, 23))
    below = draw.random() < 0.6
    cell = (int(draw.integers(190, 240)), int(size * (draw.uniform(3.4, 4.4) if below else draw.uniform(1.9, 2.6))))
    wide = columns * cell[0] + 40
    sheet = PaperSheet(kind="form", size=(wide, 1))
    y = float(draw.integers(14, 40))
    if style.head:
        sheet.write(TextRun(str(draw.choice(words.FORMS)), wide / 2, y, face, size + 3, "m"))
        date = _date(draw)
        sheet.state("date", date, "date")
        sheet.write(TextRun(date, wide - 20, y + size * 2, face, size, "r", "date"))
        y += size * 4
    left = 20 + float(draw.uniform(0, 12))
    pairs = _numbers(draw, style)
    for place, (name, printed, value) in enumerate(pairs):
        x, top = left + place % columns * cell[0], y + place // columns * cell[1]
        sheet.state(name, value, "number")
        small = size - 2 if below else size
        sheet.write(TextRun(printed, x, top, face, small, label=name, key=True))
        if below:
            sheet.write(TextRun(value, x + float(draw.uniform(0, 10)), top + size * 1.35, face, size, label=name))
        else:
            sheet.write(TextRun(value, x + cell[0] * 0.62, top, face, size, label=name))
    rows = -(-len(pairs) // columns)
    if draw.random() < 0.5:
        for row in range(rows + 1):
            at = y - size * 0.45 + row * cell[1]
            sheet.rules.append((left - 8, at, left - 8 + columns * cell[0], at))
    sheet.size = (wide, int(y + rows * cell[1] + draw.integers(10, 40)))
    return sheet


SHEETS: dict[str, Callable[[Any, Style], PaperSheet]] = {"receipt": receipt, "form": form}
"""The kinds of sheets by name."""


def _head(sheet: PaperSheet, draw: Any, face: str, size: int, y: float) -> float:
    """Who sold, where and when; where the next line begins."""
    middle, company = sheet.size[0] / 2, _company(draw)
    address = [
        f"{draw.integers(1, 200)} {_name(draw)} {draw.choice(words.STREETS)}",
        f"{draw.integers(10000, 99999)} {_name(draw)}",
    ]
    sheet.state("company", company, "text")
    sheet.write(TextRun(company, middle, y, face, size + 2, "m", "company"))
    y += size * 1.7
    sheet.state("address", ", ".join(address), "text")
    for text in address:
        sheet.write(TextRun(text, middle, y, face, size, "m", "address"))
        y += size * 1.4
    if draw.random() < 0.5:
        sheet.write(TextRun(str(draw.choice(words.TITLES)), middle, y, face, size, "m"))
        y += size * 1.6
    date = _date(draw)
    sheet.state("date", date, "date")
    sheet.write(TextRun(date, 30 if draw.random() < 0.5 else middle, y, face, size, label="date"))
    return y + size * float(draw.uniform(1.6, 2.4))


def _face(draw: Any, style: Style) -> str:
    known = style.fonts or fonts()
    return str(known[int(draw.integers(len(known)))])


def _amounts(draw: Any, style: Style) -> list[tuple[str, str, str]]:
    names = draw.permutation(list(words.AMOUNTS))[: _count(draw, style)].tolist()
    values = _different(draw, _amount if style.digits is None else _whole(draw, style), len(names))
    if style.sums:
        values.sort(key=float)
        cash_like = [name for name in ("cash", "total") if name in names]
        rest = [name for name in names if name not in cash_like]
        by_size = dict(zip([*rest, *reversed(cash_like)], values, strict=True))
        values = [by_size[name] for name in names]
    return _printed(draw, style, words.AMOUNTS, zip(names, values, strict=True))


def _numbers(draw: Any, style: Style) -> list[tuple[str, str, str]]:
    names = draw.permutation(list(words.NUMBERS))[: _count(draw, style)].tolist()
    values = _different(draw, _number if style.digits is None else _whole(draw, style), len(names))
    return _printed(draw, style, words.NUMBERS, zip(names, values, strict=True))


def _printed(
    draw: Any, style: Style, prints: dict[str, tuple[str, ...]], pairs: Iterable[tuple[str, str]]
) -> list[tuple[str, str, str]]:
    """(field, its name in print, its value)"""
    made = [(name, str(draw.choice(prints[name])), value) for name, value in pairs]
    return [(text if style.printed else name, text, value) for name, text, value in made]


def _count(draw: Any, style: Style) -> int:
    """How many pairs; a sheet that has all of them spends no number on it."""
    return PAIRS if style.pairs >= PAIRS else int(draw.integers(style.pairs, PAIRS + 1))


def _different(draw: Any, value: Callable[[Any], str], count: int) -> list[str]:
    """As many values as there are pairs, no two alike: an answer then names one place."""
    found: dict[str, None] = {}
    while len(found) < count:
        found.setdefault(value(draw))
    return list(found)


def _amount(draw: Any) -> str:
    return f"{draw.integers(1, 10 ** int(draw.integers(1, 4)))}.{draw.integers(0, 100):02d}"


def _number(draw: Any) -> str:
    return str(draw.integers(10, 10 ** int(draw.integers(3, 6))))


def _whole(draw: Any, style: Style) -> Callable[[Any], str]:
    """Numbers of so many digits; of a sheet whose values are alike, all with one first digit."""
    digits = style.digits or 1
    unit, first, last = 10 ** (digits - 1), 1, 10
    if style.alike and digits > 1 and draw.random() < style.alike:
        first = int(draw.integers(1, 10))
        last = first + 1
    return lambda draw: str(draw.integers(first * unit, last * unit))


def _date(draw: Any) -> str:
    day, month, year = int(draw.integers(1, 29)), int(draw.integers(1, 13)), int(draw.integers(2010, 2027))
    forms = (
        f"{day:02d}/{month:02d}/{year}",
        f"{day:02d}-{month:02d}-{year}",
        f"{day} {words.MONTHS[month - 1]} {year}",
    )
    return str(forms[int(draw.integers(len(forms)))])


def _name(draw: Any) -> str:
    return f"{draw.choice(words.FIRST)}{draw.choice(words.SECOND)}"


def _company(draw: Any) -> str:
    return f"{_name(draw)} {draw.choice(words.SHOPS)} {draw.choice(words.ENDINGS)}".strip()
