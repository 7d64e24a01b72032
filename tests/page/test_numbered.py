"""Whatever names lines by number names the same lines after they were put in another order, cut or left out."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra.evaluate.documents.arms import document_arms
from vertebra.page import Document, Line, Page, Word, read_pages, to_text, windows_of
from vertebra.page.numbered import facts_without_lines
from vertebra.page.page import line_of

TEXTS = [f"t{n}" for n in range(6)]


def page() -> Page:
    """Lines from the bottom up, each of which every fact names by its number, and by its text as well."""
    lines = [Line(text, (0, 90 - 10 * n, 50, 98 - 10 * n)) for n, text in enumerate(TEXTS)]
    facts = {
        "links": [[0, 3], [1, 2], [4, 1]],
        "evidence": {"first": [0, 5], "second": [3]},
        "cord": {"groups": [[text, None] for text in TEXTS], "rows": [[text] for text in TEXTS], "roi": {}},
        "fields": {"total": "9.50"},
    }
    return Page.of(lines, size=(100, 100), facts=facts)


WHOLE = page()


def require_same(found: Page) -> None:
    """By text, the facts are those of the whole page, of the lines that are there."""
    texts = [line.text for line in found.lines]
    links = {(texts[question], texts[answer]) for question, answer in found.facts["links"]}
    assert links == {(f"t{q}", f"t{a}") for q, a in WHOLE.facts["links"] if f"t{q}" in texts and f"t{a}" in texts}
    for name, numbers in WHOLE.facts["evidence"].items():
        expected = [f"t{number}" for number in numbers if f"t{number}" in texts]
        assert [texts[number] for number in found.facts["evidence"][name]] == expected
    assert [group for group, _ in found.facts["cord"]["groups"]] == texts
    assert found.facts["cord"]["rows"] == [[text] for text in texts]
    assert found.facts["cord"]["roi"] == {}
    assert found.facts["fields"] == {"total": "9.50"}


@given(numbers=st.lists(st.integers(0, 5), unique=True))
def test_any_lines_in_any_order(numbers: list[int]):
    found = WHOLE.of_lines(numbers)
    assert [line.text for line in found.lines] == [TEXTS[number] for number in numbers]
    require_same(found)


@pytest.mark.parametrize("order", ["given", "top", "columns"])
def test_reading_orders(order: str):
    found = WHOLE.in_order(order)
    assert [line.text for line in found.lines] == (TEXTS if order == "given" else TEXTS[::-1])
    require_same(found)


@given(budget=st.integers(1, 7), overlap=st.integers(0, 3))
def test_windows(budget: int, overlap: int):
    for window in windows_of(Document((WHOLE,)), lambda line: 1, budget, overlap=overlap):
        for piece in window.pages:
            require_same(piece)


def test_arms_that_move_lines():
    _, arm = document_arms("lines-shuffled")
    assert arm.change is not None
    require_same(arm.change(WHOLE, random.Random(1)))


def test_lines_that_are_others_have_no_such_facts():
    assert facts_without_lines(WHOLE.facts) == {"fields": {"total": "9.50"}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("links", "https://"),
        ("links", [["a", "b"]]),
        ("links", [[0, 9]]),
        ("links", [[0, 1, 2]]),
        ("links", {"0": 1}),
        ("evidence", ["it stands there"]),
        ("evidence", {"total": "9.50"}),
        ("evidence", {"total": [True]}),
        ("cord", 5),
        ("cord", {"groups": [1], "rows": "none"}),
    ],
)
def test_facts_of_the_same_name_that_are_something_else_stay(name: str, value: object):
    lines = [Line("a", (0, 50, 9, 60)), Line("b", (0, 0, 9, 9))]
    found = Page.of(lines, size=(100, 100), facts={name: value}).in_order("top")
    assert found.facts == {name: value}
    assert found.text == "b\na"


def test_a_form_is_written_with_its_own_links(tmp_path: Path):
    """Read, put in order, written, read: questions are linked to their answers."""
    words = {"Name:": (40, 50), "Bob": (60, 50), "Top": (1, 1)}
    lines = [line_of([Word(text, (x, y, x + 9, y + 9))], (x, y, x + 9, y + 9)) for text, (x, y) in words.items()]
    made = Page.of(lines, size=(100, 100), facts={"links": [[0, 1]]})
    written = to_text(made.in_order("top"), "funsd")
    (found,) = read_pages(json.loads(written), size=(100, 100))
    assert [[found.lines[end].text for end in link] for link in found.facts["links"]] == [["Name:", "Bob"]]
