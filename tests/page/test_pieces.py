"""Where a text stands: every place of it, as a plain search over all runs of pieces finds them; boxes of words."""

from __future__ import annotations

import random

import pytest

from vertebra.page import Box, Line, Word
from vertebra.page.pieces import TextPlace, TextPlaces, box_within, on_one_line, pieces

WORDS = ["a", "b", "a:b", "RM9.50", "9.50", "(a)", "x  y", "合計", ""]


def plain_places(lines, value, across):
    """Every run of pieces whose text is the value: (page, lines) of each."""
    found = []
    texts = [(page, number, on_one_line(line.text)) for page, number, line in lines if on_one_line(line.text)]
    joined = " ".join(text for _, _, text in texts) if across else None
    owners = [where for where, (_, _, text) in enumerate(texts) for _ in f"{text} "]
    for page, number, text in () if across else texts:
        for start, _ in pieces(text):
            for _, end in pieces(text):
                if start < end and text[start:end] == value:
                    found.append((page, (number,)))
    if joined is not None:
        runs = []
        at = 0
        for _, _, text in texts:
            runs += [(at + start, at + end) for start, end in pieces(text)]
            at += len(text) + 1
        for start, _ in runs:
            for _, end in runs:
                if start < end and joined[start:end] == value:
                    own = range(owners[start], owners[end - 1] + 1)
                    page = texts[owners[start]][0]
                    found.append((page, tuple(texts[where][1] for where in own if texts[where][0] == page)))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_every_place(seed):
    chance = random.Random(seed)
    lines = [
        (
            page,
            number,
            Line(" ".join(chance.choice(WORDS) for _ in range(chance.randrange(5))), Box(0, number, 9, number + 1)),
        )
        for page in (1, 2)
        for number in range(4)
    ]
    places = TextPlaces(lines)
    for across in (False, True):
        text = (" " if across else "\n").join(places.texts)
        values = {text[a:b] for a in range(len(text)) for b in range(a + 1, min(len(text), a + 14) + 1)}
        for value in [*(one for one in values if "\n" not in one and one == one.strip()), "nowhere", ""]:
            found = places.of(value, across=across)
            assert [(one.page, one.lines) for one in found] == plain_places(lines, value, across), value
            assert all(len(one.boxes) == len(one.lines) for one in found)


def test_boxes_are_those_of_the_words():
    words = (Word("Total:", Box(0, 0, 5, 1)), Word("RM", Box(6, 0, 8, 1)), Word("9.50", Box(9, 0, 12, 1)))
    line = Line("Total: RM 9.50", Box(0, 0, 12, 1), words=words)
    (place,) = TextPlaces([(3, 7, line)]).of("RM 9.50")
    assert place == TextPlace(page=3, lines=(7,), boxes=(Box(6, 0, 12, 1),))
    assert TextPlaces([(1, 0, line)]).of("Total")[0].boxes == (Box(0, 0, 5, 1),)
    other = Line("Total: RM 9.50", Box(0, 0, 12, 1), words=words[:2])
    assert box_within(other, 10, 14) == Box(0, 0, 12, 1)  # words that do not spell the line: its own box
    assert box_within(Line("a b"), 0, 1) is None
    solid = Line("合計900円", Box(0, 0, 9, 1), words=(Word("合計", Box(0, 0, 2, 1)), Word("900円", Box(2, 0, 9, 1))))
    assert TextPlaces([(1, 0, solid)]).of("900")[0].boxes == (Box(2, 0, 9, 1),)


def test_a_place_over_lines_and_pages():
    lines = [
        (1, 4, Line("to the", Box(0, 0, 1, 1))),
        (1, 2, Line(" ", None)),
        (1, 3, Line("end", None)),
        (2, 0, Line("of it")),
    ]
    places = TextPlaces(lines)
    assert places.of("the end") == ()
    assert places.of("the end", across=True) == (TextPlace(page=1, lines=(4, 3), boxes=(Box(0, 0, 1, 1),)),)
    assert places.of("end of", across=True) == (TextPlace(page=1, lines=(3,), boxes=()),)
    assert places.of("he end", across=True) == ()
