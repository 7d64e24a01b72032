"""Copied texts as values: amounts, whole numbers, dates, times, yes and no. The text itself is kept by whoever asks.

    RM 1,234.50 → 1234.5      1.234,50 € → 1234.5      (5.00) → -5.0      25/12/2018 → 2018-12-25      26DEC18 → 2018-12-26

What one text leaves open (1,234 or 03/04/2018), the others of the same document decide (`WritingHabits`); where they do not, a
note says what was assumed. It knows no pages and no models.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from vertebra.errors import shortened

_MONTHS = {
    "jan janv january januar janvier enero ene gennaio januari janeiro": 1,
    "feb fev fév february februar février febrero febbraio februari fevereiro": 2,
    "mar mär mars march märz marzo mrt maart março mac": 3, "apr avr april avril abril abr aprile": 4,
    "may mai mayo maggio mei maio": 5, "jun june juni juin junio giugno junho": 6,
    "jul july juli juil juillet julio luglio julho": 7, "aug august août agosto ago augustus ogos": 8,
    "sep sept september septembre septiembre settembre setembro": 9,
    "oct okt october oktober octobre octubre ottobre outubro out": 10,
    "nov november novembre noviembre novembro": 11,
    "dec dez déc december dezember décembre diciembre dic dicembre dezembro dis": 12,
}  # fmt: skip


def _plain(word: str) -> str:
    """Small letters without accents."""
    return "".join(letter for letter in unicodedata.normalize("NFD", word.lower()) if not unicodedata.combining(letter))


MONTHS = {_plain(name): number for names, number in _MONTHS.items() for name in names.split()}
MOST_DIGITS = 1000
"""Of a number; Python and JSON write no integers of more than 4,300."""
_NUMBER = re.compile(r"\d(?:[\d.,'’٫٬ ]*\d)?")
_MINUS = re.compile(r"(?:^|[\s(]|(?<![^\W\d_])RM|[$€£¥])-\s*(?:RM|[A-Z]{3}|[$€£¥])?\s*$")
"""What stands before a negative number; a hyphen behind a letter is none."""
_NUMERIC_DATE = re.compile(r"(?<!\d)(\d{1,4})\s?[-/.年]\s?(\d{1,2})\s?[-/.月]\s?(\d{1,4})(?!\d)")
_WORD = r"([^\W\d_]{3,})"
_DAY, _YEAR = r"(\d{1,2})(?:st|nd|rd|th)?", r"(\d{4}(?!\d)|\d\d(?![\d:]|\.\d\d(?![\d:])))"
"""What `:30` or `.30` follows is an hour, and no year."""
_NAMED_DATES = (
    (re.compile(rf"(?<!\d)(?<!\d:){_DAY}[\s./-]*(?:de\s+|of\s+)?{_WORD}[\s.,'’/-]*(?:de\s+)?{_YEAR}"), "dmy"),
    (re.compile(rf"{_WORD}[\s./-]*{_DAY}[\s,./-]+{_YEAR}"), "mdy"),
    (re.compile(rf"(?<!\d)(\d{{4}})[\s.,/-]*{_WORD}[\s./-]*(\d{{1,2}})(?!\d)"), "ymd"),
)
_SOLID_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)(\d\d)(\d\d)(?!\d)")
_HALF = r"\s*([ap])\.?\s?m(?!\w)|([ap])(?!\w)|\s+([ap])(?=\s*(?:$|[,;)]))"
"""am and pm as whole words; one letter alone, behind a blank, ends what it stands in (`10:30 P 4` may be a platform)."""
_TIME = re.compile(rf"(?<![\d/.:-])(\d{{1,2}})[:.](\d\d)(?:[:.](\d\d))?(?!\d)(?:{_HALF})?", re.IGNORECASE)
_YES, _NO = (
    ("yes", "true", "y", "x", "ja", "oui", "☑", "☒", "✓", "✔", "1"),
    ("no", "false", "n", "nein", "non", "☐", "0"),
)


@dataclass(frozen=True)
class WritingHabits:
    """How a document writes its numbers and dates."""

    comma: bool | None = None
    """A comma before the cents; None: the document does not show."""
    day_first: bool | None = None

    @classmethod
    def of(cls, text: str) -> WritingHabits:
        """What the other numbers and dates of a text show."""
        commas = len(re.findall(r"\d,\d\d(?!\d)(?!,\d)", text))
        points = len(re.findall(r"\d\.\d\d(?!\d)(?![./]\d)", text))
        pairs = [(int(a), int(b)) for a, b, c in _NUMERIC_DATE.findall(text) if len(a) < 3 and len(c) in (2, 4)]
        days, months = sum(a > 12 >= b for a, b in pairs), sum(b > 12 >= a for a, b in pairs)
        return cls(None if commas == points else commas > points, None if days == months else days > months)


@dataclass(frozen=True)
class NormalisedValue:
    """A value, or why there is none; `note` says what was assumed."""

    value: Any = None
    error: str = ""
    note: str = ""


def normalised(text: str, kind: str, habits: WritingHabits | None = None) -> NormalisedValue:
    """A text as a value of a kind; texts of other kinds are themselves."""
    how = KINDS.get(kind)
    return NormalisedValue(text) if how is None else how(_plain_digits(text), habits or WritingHabits())


def _plain_digits(text: str) -> str:
    """Digits of any script as 0 to 9, full-width signs as their plain ones, all kinds of blanks and minus as one."""
    text = "".join(str(unicodedata.digit(letter)) if letter.isdigit() else letter for letter in text)
    return re.sub(r"[−–—－]", "-", unicodedata.normalize("NFKC", text)).replace("\xa0", " ")


def amount(text: str, habits: WritingHabits) -> NormalisedValue:
    """The one number in a text: whole where it has no decimals, and else a float; a note where that cannot hold it."""
    digits, found = _digits(text, habits)
    if found.error:
        return found
    if "." not in digits:
        return replace(found, value=int(digits))
    if Decimal(str(value := float(digits))) == Decimal(digits):
        return replace(found, value=value)
    number, _, decimals = digits.partition(".")
    if not decimals.strip("0"):
        return replace(found, value=int(number))
    if math.isinf(value):
        return NormalisedValue(error="is too large for a number with decimals")
    note = f"`{shortened(digits, 60)}` has more digits than a number with decimals keeps"
    return replace(found, value=value, note="; ".join(filter(None, (found.note, note))))


def _digits(text: str, habits: WritingHabits) -> tuple[str, NormalisedValue]:
    """The one number in a text, as Python writes it; the `Read` has what was assumed, or why there is none."""
    found = _NUMBER.findall(text)
    # a blank between groups of three belongs to the number, any other parts two numbers
    parts = [
        part for one in found for part in ([one] if re.fullmatch(r"\d{1,3}( \d{3})+([.,]\d+)?", one) else one.split())
    ]
    if not parts:
        return "", NormalisedValue(error="holds no number")
    if len(parts) > 1:
        return "", NormalisedValue(error=f"holds {len(parts)} numbers")
    digits, note = _point(parts[0].replace(" ", ""), habits)
    if len(digits) > MOST_DIGITS:
        return "", NormalisedValue(error=f"is a number of more than {MOST_DIGITS:,} digits")
    at = text.find(found[0])
    negative = _MINUS.search(text[:at]) is not None or text[at + len(found[0]) :].strip() in ("-", "CR", "cr")
    negative |= re.fullmatch(r"\s*\(.*\)\s*", text) is not None and "%" not in text
    return f"-{digits}" if negative else digits, NormalisedValue(note=note)


def _point(number: str, habits: WritingHabits) -> tuple[str, str]:
    """A number with a point before its decimals and nothing between its thousands."""
    number = re.sub(r"['’٬]", "", number).replace("٫", ".")
    signs = [sign for sign in number if sign in ".,"]
    if not signs:
        return number, ""
    last = signs[-1]
    before, _, after = number.rpartition(last)
    if len(set(signs)) == 2:
        return f"{re.sub('[.,]', '', before)}.{after}", ""
    if len(signs) > 1:
        return number.replace(last, ""), ""
    if len(after) != 3 or len(before) > 3 or before.strip("0") == "":
        return f"{before}.{after}", ""
    thousands = habits.comma is not None and habits.comma != (last == ",")
    decimals = habits.comma is not None and not thousands
    note = (
        ""
        if habits.comma is not None
        else f"`{last}` is read as a mark of {'thousands' if last == ',' else 'decimals'}"
    )
    if thousands or (not decimals and last == ","):
        return before + after, note
    return f"{before}.{after}", note


def whole(text: str, habits: WritingHabits) -> NormalisedValue:
    """A number without a fraction."""
    digits, found = _digits(text, habits)
    number, _, decimals = digits.partition(".")
    if found.error or decimals.strip("0"):
        return NormalisedValue(error=found.error or "is no whole number")
    return replace(found, value=int(number))


def day(text: str, habits: WritingHabits) -> NormalisedValue:
    """A date, as ISO writes it."""
    found, note = _date(text, habits)
    return NormalisedValue(error="holds no date") if found is None else NormalisedValue(found.isoformat(), note=note)


def moment(text: str, habits: WritingHabits) -> NormalisedValue:
    """A date and a time of day, as ISO writes them; midnight where no time is given."""
    found, note = _date(text, habits)
    if found is None:
        return NormalisedValue(error="holds no date")
    rest = _without_date(text)
    at = _time(rest)
    if at is None and (impossible := _TIME.search(rest)):
        note = "; ".join(filter(None, (note, f"`{impossible[0].strip()}` is no time of day, and is left out")))
    return NormalisedValue(datetime.combine(found, at or time()).isoformat(), note=note)


def clock(text: str, habits: WritingHabits) -> NormalisedValue:
    """A time of day, as ISO writes it."""
    at = _time(_without_date(text))
    return NormalisedValue(error="holds no time of day") if at is None else NormalisedValue(at.isoformat())


def truth(text: str, habits: WritingHabits) -> NormalisedValue:
    """Yes or no."""
    word = text.strip().lower()
    if word in _YES or word in _NO:
        return NormalisedValue(word in _YES)
    return NormalisedValue(error="is neither yes nor no")


KINDS: dict[str, Callable[[str, WritingHabits], NormalisedValue]] = {
    "number": amount, "integer": whole, "date": day, "datetime": moment, "time": clock, "boolean": truth,
}  # fmt: skip


def _without_date(text: str) -> str:
    text = _NUMERIC_DATE.sub(" ", text, count=1)
    for pattern, _ in _NAMED_DATES:
        # `30 Table 12` of `10:30 Table 12` looks like a date, and is none
        text = pattern.sub(lambda match: " " if any(map(_month, match.groups())) else match[0], text)
    return text


def _date(text: str, habits: WritingHabits) -> tuple[date | None, str]:
    if match := _NUMERIC_DATE.search(text):
        return _numeric(match.groups(), habits)
    for pattern, order in _NAMED_DATES:
        for match in pattern.finditer(text):
            parts = dict(zip(order, match.groups(), strict=True))
            month = _month(parts["m"])
            if month and (found := _made(_year(parts["y"]), month, int(parts["d"]))):
                return found, ""
    if match := _SOLID_DATE.search(text):
        return _made(*(int(part) for part in match.groups())), ""
    return None, ""


def _month(word: str) -> int | None:
    """The month that a word names, or begins to name: `Sept`, `Decem`; `Marketing` is none."""
    plain = _plain(word)
    begun = {number for name, number in MONTHS.items() if name.startswith(plain)}
    return MONTHS.get(plain) or (begun.pop() if len(begun) == 1 else None)


def _numeric(parts: tuple[str, ...], habits: WritingHabits) -> tuple[date | None, str]:
    first, second, third = parts
    if len(first) == 4:
        return _made(int(first), int(second), int(third)), ""
    if len(third) not in (2, 4):
        return None, ""
    day_first, note = True, ""
    if int(first) <= 12 and int(second) <= 12:
        day_first = habits.day_first is not False
        if habits.day_first is None and first != second:
            note = "read with the day first, for the document does not show its order"
    elif int(second) > 12:
        day_first = False
    d, m = (first, second) if day_first else (second, first)
    return _made(_year(third), int(m), int(d)), note


def _year(text: str) -> int:
    year = int(text)
    return year if len(text) == 4 else 2000 + year if year < 70 else 1900 + year


def _made(year: int, month: int, of_month: int) -> date | None:
    try:
        return date(year, month, of_month)
    except ValueError:
        return None


def _time(text: str) -> time | None:
    match = _TIME.search(text)
    if match is None:
        return None
    hour, minute, second = int(match[1]), int(match[2]), int(match[3] or 0)
    half = (match[4] or match[5] or match[6] or "").lower()
    if half and hour <= 12:  # later hours are written of 24, whatever follows
        hour = hour % 12 + (12 if half == "p" else 0)
    return time(hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None
