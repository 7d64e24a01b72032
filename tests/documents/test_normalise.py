"""Texts as values; what one text leaves open, its document decides, and else a note says what was assumed."""

from __future__ import annotations

import random
from datetime import date, timedelta

import pytest

from vertebra.documents.normalise import Habits, normalised


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("number", "RM 1,234.50", 1234.5), ("number", "1.234,50 €", 1234.5), ("number", "(5.00)", -5.0),
        ("number", "-5.00", -5.0), ("number", "5.00-", -5.0), ("number", "RM -5.00", -5.0), ("number", "−5.00", -5.0),
        ("number", "1 234,50", 1234.5), ("number", "1'234.50", 1234.5), ("number", "(6%)", 6), ("number", "0.125", 0.125),
        ("number", "1,234,567", 1234567), ("number", "١٢٫٥", 12.5), ("number", "９００円", 900), ("integer", "No. 17", 17),
        ("number", "B-4780 Sankt Vith", 4780), ("number", "RM-5.00", -5), ("number", "- $5", -5),
        ("date", "25/12/2018", "2018-12-25"), ("date", "25-12-18 8:13:39 PM", "2018-12-25"),
        ("date", "2018-12-25", "2018-12-25"), ("date", "26DEC18", "2018-12-26"), ("date", "Dec 25, 2018", "2018-12-25"),
        ("date", "TUE 25. Dezember 2018", "2018-12-25"), ("date", "1st of March 2020", "2020-03-01"),
        ("date", "12/25/2018", "2018-12-25"), ("date", "20181225", "2018-12-25"), ("date", "2018年12月25日", "2018-12-25"),
        ("datetime", "25/12/2018 8:13:39 PM", "2018-12-25T20:13:39"), ("datetime", "25.12.2018", "2018-12-25T00:00:00"),
        ("time", "14:05", "14:05:00"), ("time", "12:30 am", "00:30:00"), ("boolean", "Yes", True), ("boolean", "☐", False),
        ("text", " as it is ", " as it is "),
    ],
)  # fmt: skip
def test_values(kind, text, value):
    assert normalised(text, kind).value == value
    assert normalised(text, kind).error == ""


@pytest.mark.parametrize(
    ("kind", "text"),
    [("number", "none"), ("number", "2 or 3"), ("integer", "1.5"), ("date", "31/02/2018"), ("date", "12 monkeys 99"),
     ("time", "25:00"), ("boolean", "perhaps"), ("datetime", "8 PM")],
)  # fmt: skip
def test_no_values(kind, text):
    made = normalised(text, kind)
    assert made.value is None
    assert made.error


def test_the_document_decides_what_a_text_leaves_open():
    assert normalised("1,234", "number").value == 1234
    assert normalised("1,234", "number").note
    assert normalised("1,234", "number", Habits.of("0,50 12,00")).value == 1.234
    assert normalised("1.234", "number", Habits.of("0,50 12,00")).value == 1234
    assert normalised("03/04/2018", "date").value == "2018-04-03"
    assert "day first" in normalised("03/04/2018", "date").note
    assert normalised("03/04/2018", "date", Habits.of("paid 03/25/2018")).value == "2018-03-04"
    assert Habits.of("25/12/2018 1.50") == Habits(comma=False, day_first=True)


def test_random_dates_and_amounts_come_back():
    chance = random.Random(0)
    for _ in range(300):
        day = date(1990, 1, 1) + timedelta(days=chance.randrange(20000))
        written = day.strftime(
            chance.choice(["%Y-%m-%d", "%d %b %Y", "%B %d, %Y", "%d%b%Y", "%d. %B %Y", "%Y/%m/%d", "%Y%m%d"])
        )
        assert normalised(written, "date").value == day.isoformat(), written
        amount = round(chance.uniform(-99999, 99999), 2)
        assert normalised(f"RM {amount:,.2f}", "number").value == amount
        european = f"{amount:,.2f}".translate(str.maketrans(",.", ".,"))
        assert normalised(f"{european} EUR", "number").value == amount
