"""Windows of long documents beside a plain twin; lines whole, in order, each with its box."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra.errors import ConfigError, TooLongError
from vertebra.page import Document, Line, Page, windows_of

LENGTHS = st.lists(st.lists(st.integers(1, 9), max_size=8), max_size=5)


def document(lengths: list[list[int]]) -> Document:
    pages = [
        Page.of([Line("x" * length, (0, n, 9, n + 1)) for n, length in enumerate(page)], size=(10, 10), number=number)
        for number, page in enumerate(lengths, 1)
    ]
    return Document(tuple(pages))


def plain(lengths: list[list[int]], budget: int) -> list[list[tuple[int, int]]]:
    """Without overlap: fill, then start anew."""
    made, room = [[]], budget
    for number, page in enumerate(lengths, 1):
        for line, length in enumerate(page):
            if length > room:
                made.append([])
                room = budget
            made[-1].append((number, line))
            room -= length
    return [window for window in made if window]


def cost(line: Line) -> int:
    return len(line.text)


@given(lengths=LENGTHS, budget=st.integers(9, 30))
def test_as_the_plain_twin(lengths, budget):
    found = list(windows_of(document(lengths), cost, budget))
    assert [list(window.places) for window in found] == plain(lengths, budget)


@given(lengths=LENGTHS, budget=st.integers(9, 30), overlap=st.integers(0, 4))
def test_nothing_is_lost_cut_or_parted_from_its_box(lengths, budget, overlap):
    whole = document(lengths)
    seen: list[tuple[int, int]] = []
    for window in windows_of(iter(whole), cost, budget, overlap=overlap):
        assert sum(map(cost, window.lines)) <= budget
        assert window.lines == [whole.page(page).lines[line] for page, line in window.places]
        again = [place for place in window.places if place in seen]
        assert len(again) <= overlap
        assert list(window.places[: len(again)]) == again
        seen += window.places[len(again) :]
    assert seen == [(page.number, n) for page in whole for n in range(len(page.lines))]


def test_one_page_and_what_cannot_be():
    page = document([[3, 4]]).pages[0]
    assert [len(window.lines) for window in windows_of(page, cost, 7)] == [2]
    with pytest.raises(TooLongError, match="line 1 of page 1 costs 4, and a window holds 3"):
        list(windows_of(page, cost, 3))
    with pytest.raises(ConfigError, match="budget"):
        list(windows_of(page, cost, 0))
