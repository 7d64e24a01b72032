"""Drawn receipts and forms: always the same from a seed, true to what they say, with boxes where the ink is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vertebra.errors import UnknownNameError
from vertebra.page.paper import words
from vertebra.page.paper.fonts import PILLOW, font, fonts
from vertebra.page.paper.ink import Wear, slanted
from vertebra.page.paper.made import drawn_page
from vertebra.page.paper.receipts import PAIRS, Style

MANY = 60
PLAIN = Style(fonts=(PILLOW,))
SORTS = ("amount", "number")


def pairs(page) -> dict[str, str]:
    return {name: value for name, value in page.facts["fields"].items() if page.facts["sorts"][name] in SORTS}


@pytest.mark.parametrize("kind", ["receipt", "form"])
def test_a_sheet_says_what_its_facts_say(kind):
    for number in range(MANY):
        page = drawn_page(kind, number, 3)
        assert page == drawn_page(kind, number, 3)
        assert len(pairs(page)) == PAIRS == len(set(pairs(page).values()))
        for name, value in page.facts["fields"].items():
            lines = page.facts["evidence"][name]
            assert ", ".join(page.lines[line].text for line in lines) == value
        for name in pairs(page):
            (key,) = [line for line in page.lines if line.label == f"{name}.key"]
            assert key.text in {**words.AMOUNTS, **words.NUMBERS}[name]
            value = page.lines[page.facts["evidence"][name][0]]
            row = min(key.box.bottom, value.box.bottom) - max(key.box.top, value.box.top)
            below = value.box.top >= key.box.top and abs(value.box.left - key.box.left) < 40
            assert row > 0 or below, (name, key, value)
        assert not page.notes, "no box leaves the page"
    assert drawn_page(kind, 0, 3) != drawn_page(kind, 0, 4)


def test_words_alone_reach_one_in_six():
    """Values are drawn from one distribution: the best guess by rank or by name is right once in six."""
    ranks: Counter[tuple[str, int]] = Counter()
    for number in range(600):
        page = drawn_page("receipt", number, 1, style=replace(PLAIN, head=False))
        values = sorted(pairs(page).values(), key=float)
        for name, value in pairs(page).items():
            ranks[name, values.index(value)] += 1
    for name in words.AMOUNTS:
        own = [ranks[name, rank] for rank in range(PAIRS)]
        assert max(own) / sum(own) < 1 / PAIRS + 0.06
    summed = [drawn_page("receipt", n, 1, style=replace(PLAIN, sums=True)) for n in range(MANY)]
    for page in summed:
        if "total" in pairs(page):
            rank = sorted(pairs(page).values(), key=float, reverse=True).index(pairs(page)["total"])
            assert rank == (1 if "cash" in pairs(page) and rank else rank) <= 1


def test_boxes_lie_where_the_ink_is():
    """Ink of a picture, found by its darkness: nearly all of it in boxes, and some in every box."""
    for number in range(12):
        page = drawn_page("receipt", number, 5, picture=True, wear=Wear(turn=3, blur=0.3, grain=2, fade=0))
        pixels = np.asarray(page.image.convert("L")) < 128
        covered = np.zeros_like(pixels)
        for line in page.lines:
            left, top, right, bottom = (int(n) for n in line.box)
            inside = pixels[top : bottom + 2, left : right + 2]
            assert inside.any(), line.text
            covered[max(top - 1, 0) : bottom + 3, max(left - 1, 0) : right + 3] = True
            for word in line.words:
                assert line.box.left - 1 <= word.box.left <= word.box.right <= line.box.right + 1
        assert (pixels & ~covered).sum() <= 0.01 * pixels.sum()
        assert page.size == page.image.size


def test_few_pairs_and_the_rest_as_before():
    found = Counter()
    for number in range(MANY):
        page = drawn_page("mixed", number, 3, style=replace(PLAIN, pairs=2))
        found[len(pairs(page))] += 1
        assert (
            len(set(pairs(page).values()))
            == len(pairs(page))
            == sum(line.label in page.facts["fields"] for line in page.lines if line.label in pairs(page))
        )
        assert drawn_page("mixed", number, 3, style=replace(PLAIN, pairs=PAIRS)) == drawn_page(
            "mixed", number, 3, style=PLAIN
        )
    assert sorted(found) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_values_that_begin_alike(digits):
    """As many sheets as asked; values stay different, and of one digit there is nothing to be alike."""
    style, alike = replace(PLAIN, digits=digits, alike=0.5), 0
    for number in range(200):
        values = list(pairs(drawn_page("mixed", number, 5, style=style)).values())
        assert len(set(values)) == PAIRS
        assert {len(value) for value in values} == {digits}
        alike += len({value[0] for value in values}) == 1
    assert alike == 0 if digits == 1 else 75 <= alike <= 125


def test_a_slant_moves_boxes_as_that_of_a_picture_does():
    """Beside the size that Pillow gives a picture that is turned, and the way back to where a line was."""
    for number in range(12):
        flat, page = drawn_page("mixed", number, 2), drawn_page("mixed", number, 2, slant=9)
        assert [line.text for line in flat.lines] == [line.text for line in page.lines]
        (a, b), (wide, high) = page.lines[0].quad[:2], flat.size
        angle = -np.degrees(np.arctan2(b[1] - a[1], b[0] - a[0]))
        assert 0 < abs(angle) < 9
        turned = Image.new("L", (int(wide), int(high))).rotate(angle, expand=True)
        assert np.allclose(page.size, turned.size, atol=1)
        back = slanted(page, -angle, (int(wide), int(high)), page.size)
        for one, other in zip(flat.lines, back.lines, strict=True):
            assert np.allclose(other.quad[0], (one.box.left, one.box.top), atol=0.5)
    assert drawn_page("mixed", 0, 2, slant=0) == drawn_page("mixed", 0, 2)


def test_a_picture_says_the_same():
    for number in range(4):
        clean, worn = drawn_page("mixed", number, 2), drawn_page("mixed", number, 2, picture=True)
        assert [line.text for line in clean.lines] == [line.text for line in worn.lines]
        assert clean.facts == worn.facts
        assert np.array_equal(np.asarray(worn.image), np.asarray(drawn_page("mixed", number, 2, picture=True).image))
        assert worn.lines[0].quad is not None


def test_fonts_and_kinds_by_name():
    assert fonts()[0] == PILLOW
    assert font(PILLOW, 20).getlength("Total") > font(PILLOW, 10).getlength("Total")
    with pytest.raises(UnknownNameError, match="pillow"):
        font("pilow", 12)
    with pytest.raises(UnknownNameError, match="receipt"):
        drawn_page("reciept")
