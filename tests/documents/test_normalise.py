"""Texts as values; what one text leaves open, its document decides, and else a note says what was assumed."""

from __future__ import annotations

import random
from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra.documents.normalise import KINDS, NormalisedValue, WritingHabits, normalised


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
        ("date", "25 Sept. 2018", "2018-09-25"), ("date", "25 Decem 2018", "2018-12-25"), ("date", "5 Aout 18", "2018-08-05"),
        ("date", "10:30 Dec 25 2018", "2018-12-25"), ("date", "Date:25 Dec 18", "2018-12-25"),
        ("date", "25/Dec/2018:18:30:00", "2018-12-25"), ("date", "26DEC18.10:30", "2018-12-26"),
        ("datetime", "25/12/2018 10:30 Table 12", "2018-12-25T10:30:00"),
        ("datetime", "14:30 am 25.12.2018", "2018-12-25T14:30:00"),
        ("time", "14:05", "14:05:00"), ("time", "12:30 am", "00:30:00"), ("boolean", "Yes", True), ("boolean", "☐", False),
        ("time", "10:30 Platform 4", "10:30:00"), ("time", "10:15 PAID", "10:15:00"), ("time", "10:30 P 4", "10:30:00"),
        ("time", "12:30 a table", "12:30:00"), ("time", "14:30 am", "14:30:00"), ("time", "13:30 pm", "13:30:00"),
        ("number", "FARM-5.00", 5.0), ("number", "1" * 330, int("1" * 330)),
        ("integer", "-9876543210123457.00", -9876543210123457),
        ("text", " as it is ", " as it is "),
    ],
)  # fmt: skip
def test_values(kind, text, value):
    assert normalised(text, kind).value == value
    assert normalised(text, kind).error == ""


@pytest.mark.parametrize(
    ("kind", "text"),
    [("number", "none"), ("number", "2 or 3"), ("integer", "1.5"), ("date", "31/02/2018"), ("date", "12 monkeys 99"),
     ("time", "25:00"), ("boolean", "perhaps"), ("datetime", "8 PM"), ("date", "25 Marketing 2018"),
     ("date", "3 Mayonnaise 20"), ("date", "25 Jui 2018"), ("date", "25 Dec 18:30"), ("date", "Dec 25 18.30"),
     ("number", "1" * 1001), ("integer", "1" * 5000), ("number", "1" * 400 + ".5"), ("integer", "1" * 400 + ".5")],
)  # fmt: skip
def test_no_values(kind, text):
    made = normalised(text, kind)
    assert made.value is None
    assert made.error


def test_the_document_decides_what_a_text_leaves_open():
    assert normalised("1,234", "number").value == 1234
    assert normalised("1,234", "number").note
    assert normalised("1,234", "number", WritingHabits.of("0,50 12,00")).value == 1.234
    assert normalised("1.234", "number", WritingHabits.of("0,50 12,00")).value == 1234
    assert normalised("03/04/2018", "date").value == "2018-04-03"
    assert "day first" in normalised("03/04/2018", "date").note
    assert normalised("03/04/2018", "date", WritingHabits.of("paid 03/25/2018")).value == "2018-03-04"
    assert WritingHabits.of("25/12/2018 1.50") == WritingHabits(comma=False, day_first=True)


@pytest.mark.parametrize(
    "word", ["AM", "pm", "a.m.", "P.M", "a", "p", "Platform", "PAID", "amount", "pmx", "a table", "p4"]
)
@pytest.mark.parametrize("blank", ["", " "])
def test_a_half_of_the_day_is_a_whole_word(word, blank):
    half = {"am": "a", "a": "a", "pm": "p", "p": "p"}.get(word.lower().replace(".", ""))
    half = "a" if (word, blank) == ("a table", "") else half
    for hour in range(24):
        expected = hour % 12 + 12 * (half == "p") if half and hour <= 12 else hour
        assert normalised(f"{hour}:05{blank}{word}", "time").value == f"{expected:02}:05:00"
        assert normalised(f"25 Dec 2018 {hour}:05{blank}{word}", "datetime").value == f"2018-12-25T{expected:02}:05:00"


def test_a_time_that_cannot_be_is_noted():
    made = normalised("25/12/2018 25:10", "datetime")
    assert (made.value, made.error) == ("2018-12-25T00:00:00", "")
    assert "`25:10` is no time of day" in made.note
    assert normalised("25/12/2018", "datetime").note == ""


def in_groups(digits: str, how: str, mark: str) -> str:
    """The digits of a whole number in threes, or as in India: three, and then twos."""
    head, groups = digits, list[str]()
    while len(head) > (3 if how == "threes" or not groups else 2):
        size = 3 if how == "threes" or not groups else 2
        head, groups = head[:-size], [head[-size:], *groups]
    return mark.join([head, *groups])


WHOLE = st.integers(0, 10**40)
MARKS = st.sampled_from(
    [("", "."), ("", ","), (",", "."), (".", ","), (" ", ","), ("\u202f", ","), ("'", "."), ("’", ",")]
)


@given(number=WHOLE, how=st.sampled_from(["threes", "India"]), marks=MARKS, minus=st.booleans())
def test_whole_numbers_come_back_exactly(number, how, marks, minus):
    mark = marks[0] if how == "threes" or marks[0] in (",", "") else ","
    text = f"{'-' if minus else ''}{in_groups(str(number), how, mark)}"
    habits = WritingHabits(comma=mark == ".")
    for kind, more in (("integer", ""), ("integer", f"{marks[1]}00"), ("number", "")):
        if more and mark == marks[1]:
            continue
        made = normalised(text + more, kind, habits if not more else WritingHabits(comma=marks[1] == ","))
        assert made.error == ""
        assert type(made.value) is int
        assert made.value == (-number if minus else number)


@given(number=WHOLE, cents=st.text("0123456789", min_size=2, max_size=2), marks=MARKS)
def test_amounts_come_back_exactly_or_with_a_note(number, cents, marks):
    """As decimals; a float keeps fifteen digits of any number, and where it does not keep all, a note says so."""
    made = normalised(f"RM {in_groups(str(number), 'threes', marks[0])}{marks[1]}{cents}", "number")
    exact = Decimal(f"{number}.{cents}")
    assert made.error == ""
    assert Decimal(str(made.value)) == exact or "has more digits than" in made.note
    assert len(str(number)) > 13 or made == NormalisedValue(float(exact))


@given(text=st.text("0123456789.,' ()-:/apmADecRM%½²", max_size=30), kind=st.sampled_from(list(KINDS)))
def test_nothing_is_raised(text, kind):
    made = normalised(text, kind)
    assert (made.value is None) == bool(made.error)


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
