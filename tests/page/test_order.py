"""Reading order on layouts drawn by hand, and what holds of every one: no line is lost or doubled."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.page.made import PAGES
from vertebra.errors import UnknownNameError
from vertebra.page import Line, Page
from vertebra.page.order import right_to_left


def texts(page: Page, order: str) -> list[str]:
    return [line.text for line in page.in_order(order).lines]


def shuffled(lines: list[Line], seed: int = 0) -> Page:
    random.Random(seed).shuffle(lines)
    return Page.of(lines, size=(200, 300))


def columns(letters: str = "ab", head: bool = True) -> list[Line]:
    """A head across the page, and under it columns of five lines."""
    lines = [
        Line(f"{name}{n}", (10 + 95 * c, 40 + 14 * n, 95 + 95 * c, 50 + 14 * n))
        for c, name in enumerate(letters)
        for n in range(5)
    ]
    return [*lines, Line("head", (10, 5, 190, 20))] if head else lines


@pytest.mark.parametrize("seed", range(4))
def test_columns(seed: int):
    page = shuffled(columns(), seed)
    assert texts(page, "columns") == ["head", *(f"a{n}" for n in range(5)), *(f"b{n}" for n in range(5))]
    assert texts(page, "top") == ["head", *(f"{c}{n}" for n in range(5) for c in "ab")]
    assert texts(page, "given") == [line.text for line in page.lines]


def test_rows_of_a_slanted_scan():
    """Each box a little lower than its neighbour: still one row, and it does not swallow the next."""
    lines = [
        Line(f"{row}{n}", (10 + 30 * n, 20 * row + 2 * n, 35 + 30 * n, 20 * row + 12 + 2 * n))
        for row in range(4)
        for n in range(5)
    ]
    assert texts(shuffled(lines), "top") == [f"{row}{n}" for row in range(4) for n in range(5)]


def test_right_to_left_rows_and_columns_begin_on_the_right():
    lines = [Line("שלום", (110, 10, 190, 20)), Line("עולם", (10, 10, 90, 20)), Line("מה", (10, 30, 90, 40))]
    assert texts(shuffled(lines), "top") == ["שלום", "עולם", "מה"]
    assert texts(shuffled(columns("אב", head=False)), "columns") == [f"{c}{n}" for c in "בא" for n in range(5)]
    assert right_to_left("مرحبا abc")
    assert not right_to_left("123 abc مر")


def test_a_line_without_a_box_follows_the_one_before_it():
    lines = [Line("nowhere"), Line("b", (0, 50, 9, 60)), Line("below b"), Line("a", (0, 0, 9, 10))]
    assert texts(Page.of(lines, size=(100, 100)), "top") == ["nowhere", "a", "b", "below b"]


@given(page=PAGES, order=st.sampled_from(["given", "top", "columns"]))
def test_every_line_once(page, order):
    assert sorted(texts(page, order)) == sorted(line.text for line in page.lines)


def test_an_unknown_order():
    with pytest.raises(UnknownNameError, match="columns"):
        Page().in_order("column")
