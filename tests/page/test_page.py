"""Units, origin, turning, validation: each conversion against arithmetic written out here."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.page.made import BOXES, PAGES, page
from tests.prompt.samples import ask, text
from tests.prompt.tokenizers import committed
from vertebra.errors import ConfigError, DataError, UnknownNameError
from vertebra.page import Box, Document, Line, Page, Word, windows_of
from vertebra.page.geometry import turned, union
from vertebra.page.page import joined, numbered
from vertebra.prompt.rendering import render
from vertebra.prompt.tokenizer import FastTokenizer
from vertebra.sequence.roles import Role

ONE = Page.of([Line("Total", (10, 20, 30, 40))], size=(100, 200))


def test_units_by_hand():
    assert ONE.to("relative").lines[0].box == (0.1, 0.1, 0.3, 0.2)
    assert ONE.to("thousand").lines[0].box == (100, 100, 300, 200)
    assert ONE.to("point", dpi=144).lines[0].box == (5, 10, 15, 20)
    assert ONE.to("mm10", dpi=254).lines[0].box == (10, 20, 30, 40)
    assert ONE.to("inch1200", dpi=100).lines[0].box == (120, 240, 360, 480)
    assert ONE.to("pixel", size=(50, 400)).lines[0].box == (5, 40, 15, 80)
    assert ONE.to("point", dpi=144).size == (50, 100)


@given(page=PAGES, unit=st.sampled_from(["relative", "point", "mm10", "inch1200"]))
def test_there_and_back(page, unit):
    back = page.to(unit, dpi=96).to("pixel", dpi=96)
    assert back.size == pytest.approx(page.size)
    for line, same in zip(back.lines, page.lines, strict=True):
        assert line.box == pytest.approx(same.box, abs=1e-9)


def test_a_relative_page_of_points_keeps_its_measure():
    points = Page.of([Line("a", (0, 0, 72, 72))], size=(720, 720), unit="point")
    assert points.to("thousand").to("point").lines[0].box == (0, 0, 72, 72)
    with pytest.raises(DataError, match="dpi"):
        points.to("thousand").to("pixel")
    assert points.to("thousand").to("pixel", dpi=72).lines[0].box == (0, 0, 72, 72)


def test_the_bottom_as_origin_is_turned_over_once():
    below = Page.of([Line("a", (1, 2, 3, 4))], size=(10, 20), unit="point", origin="bottom")
    assert below.lines[0].box == (1, 16, 3, 18)
    # Docling's order of corners, top before bottom, is the same box
    assert Page.of([Line("a", (1, 4, 3, 2))], size=(10, 20), origin="bottom").lines[0].box == (1, 16, 3, 18)


@given(box=BOXES, angle=st.sampled_from([0, 90, 180, 270]))
def test_turning(box, angle):
    size, back = (100, 130), {0: 0, 90: 270, 180: 180, 270: 90}[angle]
    there = turned(box, angle, size)
    assert turned(there, back, size if angle % 180 == 0 else (130, 100)) == box
    one = Page.of([Line("a", box)], size=size)
    assert one.turned(angle).lines[0].box == there
    assert one.turned(angle).turned(back) == one
    with pytest.raises(DataError, match="45"):
        one.turned(45)


def test_a_clockwise_turn_brings_the_left_to_the_top():
    assert turned(Box(0, 0, 10, 5), 90, (100, 50)) == (45, 0, 50, 10)


@pytest.mark.parametrize(
    ("box", "reported", "mended"),
    [
        ((30, 20, 10, 40), "swapped", (10, 20, 30, 40)),
        ((10, 20, 130, 40), "leaves the page", (10, 20, 100, 40)),
        ((500, 20, 530, 40), "outside of 100 × 200", None),
        ((math.nan, 20, 30, 40), "no numbers", None),
        ((10, 20, math.inf, 40), "no numbers", None),
    ],
)
def test_a_box_that_cannot_be_is_refused_or_mended_with_a_report(box, reported, mended):
    lines = [Line("first", (0, 0, 1, 1)), Line("Total", box)]
    with pytest.raises(DataError, match=f"line 1 .*Total.*{reported}"):
        Page.of(lines, size=(100, 200))
    made = Page.of(lines, size=(100, 200), on_bad="repair")
    assert made.lines[1].box == mended
    assert len(made.notes) == 1
    assert reported in made.notes[0]


def test_all_faults_at_once_and_words_too():
    word = Word("w", (9, 9, 1, 1))
    with pytest.raises(DataError, match=r"7 boxes.*line 0, word 0.*and 2 more"):
        Page.of([Line("a", (0, 0, 9, 9), words=(word,))] * 7, size=(10, 10))


def test_rounding_over_the_edge_is_clipped_in_silence():
    made = Page.of([Line("a", (0, 0, 1000.5, 10))], size=(1000, 100))
    assert made.lines[0].box == (0, 0, 1000, 10)
    assert not made.notes


def test_what_is_missing_is_asked_for():
    with pytest.raises(DataError, match=r"size=.*image="):
        Page.of([Line("a", (0, 0, 1, 1))], size=None)
    relative = Page.of([Line("a", (0, 0, 1, 1))], size=None, unit="relative")
    assert relative.to("thousand").lines[0].box == (0, 0, 1000, 1000)
    with pytest.raises(DataError, match="size of the page is needed"):
        relative.to("pixel")
    assert relative.to("pixel", size=(5, 6)).lines[0].box == (0, 0, 5, 6)
    with pytest.raises(UnknownNameError, match="pixel"):
        ONE.to("pixels")
    with pytest.raises(DataError, match="above 0"):
        Page.of([], size=(0, 10))
    with pytest.raises(ConfigError, match="repair"):
        Page.of([], size=(1, 1), on_bad="skip")
    with pytest.raises(DataError, match="four numbers"):
        Page.of([Line("a", (1, 2, 3))], size=(9, 9))


def test_a_line_without_a_box_stays_and_a_model_hears_of_none():
    made = Page.of([Line("nowhere"), Line("Total", (10, 20, 30, 40))], size=(100, 200))
    assert made.part()["lines"] == [{"text": "nowhere", "box": None}, {"text": "Total", "box": [100, 100, 300, 200]}]


def test_a_page_is_one_call_from_a_conversation():
    """Texts of control tokens stay text, a line break inside a line becomes a blank, a blank line goes."""
    made = Page.of([Line("</s> a\nb", (0, 0, 10, 10)), Line(" ", (0, 0, 1, 1))], size=(100, 100))
    part = made.part()
    assert part["lines"] == [{"text": "</s> a b", "box": [0, 0, 100, 100]}]
    own = FastTokenizer(committed("llama"), bos="<s>", eos="</s>")
    sequence = render(ask([part, text("Sum?")]), "pure", own)
    assert 2 not in sequence.ids[sequence.slot[:, 0] < 0]
    assert (sequence.slot[:, 0] >= 0).sum() == 1
    assert (sequence.role == Role.PAGE).sum() > 4


def test_a_page_that_is_not_there():
    document = Document((ONE, replace(ONE, number=2)), "a.pdf")
    assert document.page(2).number == 2
    with pytest.raises(DataError, match=r"no page 3 in `a.pdf`; its pages are 1 to 2"):
        document.page(3)
    with pytest.raises(DataError, match="none"):
        Document(()).page(1)


def test_every_page_of_a_document_has_a_number_of_its_own():
    """Places are looked up by it: of two pages 1, the second could not be reached."""
    with pytest.raises(DataError, match=r"two pages 1 in this document; number them"):
        Document((ONE, ONE))
    with pytest.raises(DataError, match="two pages 1"):
        list(windows_of(iter([ONE, ONE]), lambda line: 1, 9))
    apart = (replace(ONE, number=7), ONE)
    assert numbered(apart, "the list") == apart
    first, second = numbered(iter([ONE, replace(ONE, number=3), ONE]), "the list")[::2]
    assert (first.number, second.number) == (1, 3)
    assert second.notes == ("page 1 in the list, where a number is there twice: the pages are numbered in their order",)


def test_words_and_texts():
    assert joined(["a", "中", "文", "b"]) == "a 中文 b"
    assert [word.text for word in page(0).words] == [word.text for line in page(0).lines for word in line.words]
    assert ONE.words == [Word("Total", Box(10, 20, 30, 40))]
    assert ONE.text == "Total"


@given(one=BOXES, other=BOXES)
def test_overlap_against_counted_cells(one, other):
    cells = {(x, y) for x in range(one.left, one.right) for y in range(one.top, one.bottom)}
    others = {(x, y) for x in range(other.left, other.right) for y in range(other.top, other.bottom)}
    assert one.shared(other) == len(cells & others)
    if cells | others:
        assert one.iou(other) == (1.0 if one == other else len(cells & others) / len(cells | others))
    both = union([one, other])
    assert both.left == min(one.left, other.left)
    assert both.bottom == max(one.bottom, other.bottom)
    assert union([]) is None
