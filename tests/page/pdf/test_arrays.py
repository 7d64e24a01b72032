"""Characters and words as arrays are those of the plain loops: on files made by hand, on real ones, on chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.page.made import SAMPLES, needs_samples
from tests.page.pdf import plain
from tests.page.pdf.made import Text, pdf
from vertebra.page.pdf.characters import Characters, _paired, characters
from vertebra.page.pdf.grouping import lines

pdfium = pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed (vertebra[doc])")
VECTORS = ("left", "top", "right", "bottom", "turn", "size", "generated", "visible")


def require_same(page) -> int:
    """The number of characters held against the plain ones."""
    ours, theirs = characters(page), plain.characters(page)
    assert ours.text == "".join(one.text for one in theirs)
    drawn = ~ours.generated
    assert ours.generated.tolist() == [one.generated for one in theirs]
    for name in VECTORS:
        expected = np.array([getattr(one, name) for one in theirs])
        assert np.array_equal(getattr(ours, name)[drawn], expected[drawn]), name
    assert lines(ours, inside=page.get_size()) == plain.lines(theirs, page.get_size())
    return len(ours)


PAGE = [
    Text("Hello world", 100, 700, 20),
    Text("next to it", 230, 700, 20),
    Text("hidden", 100, 650, mode=3),
    Text("upwards it runs", 300, 300, matrix="0 1 -1 0"),
    Text("downwards", 350, 600, matrix="0 -1 1 0"),
    Text("on its head", 300, 200, matrix="-1 0 0 -1"),
    Text("aslant", 100, 400, matrix="0.9 0.4 -0.4 0.9"),
    Text("leaning", 100, 100, matrix="1 0 0.4 1"),
    Text("back", 400, 500),
    Text("wards", 380, 500),
    Text("outside", 700, 500),
]


@pytest.mark.parametrize("crop", [None, (50, 80, 500, 760)])
@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_pages_made_by_hand(rotate: int, crop, tmp_path: Path):
    document = pdfium.PdfDocument(pdf(tmp_path / "a.pdf", [PAGE, []], rotate=rotate, crop=crop))
    assert require_same(document[0]) > 80
    assert require_same(document[1]) == 0


@needs_samples
def test_real_pages():
    counts = {}
    for file in sorted(SAMPLES.glob("*/*.pdf")):
        try:
            document = pdfium.PdfDocument(file)
        except pdfium.PdfiumError:
            continue
        counts[file.name] = sum(require_same(page) for page in document)
    assert sum(counts.values()) > 20_000


LETTER = st.tuples(
    st.sampled_from("ab9-é中  \u00a0\u2003\n\r"),
    st.floats(-4, 12).map(lambda step: round(step * 2) / 2),  # from the letter before it; halves meet the gap exactly
    st.sampled_from([0.0, 0.0, 0.0, 0.5, 2.0, -9.0, 20.0]),
    st.sampled_from([0, 0, 0, 0, 90, 180, 270]),
    st.sampled_from([6.0, 10.0, 10.0]),
    st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(LETTER, max_size=30))
def test_letters_by_chance(given_letters):
    theirs, x, y = [], 20.0, 40.0
    for text, step, fall, turn, size, generated in given_letters:
        x, y = x + step, y + fall
        generated = generated and text.isspace()
        theirs.append(plain.Character(text, x, y, x + 5, y + size, turn, size, generated))
    columns = [np.array([getattr(one, name) for one in theirs]) for name in VECTORS]
    typed = [
        column.astype(bool if name in VECTORS[6:] else float) for name, column in zip(VECTORS, columns, strict=True)
    ]
    ours = Characters("".join(one.text for one in theirs), *typed)
    assert lines(ours, inside=(150, 80)) == plain.lines(theirs, (150, 80))


def test_halves_of_pairs_are_one_letter():
    codes = np.array([0x41, 0xD83D, 0xDE00, 0xD83D, 0x42, 0xDE00])
    vectors = [np.arange(len(codes)) for _ in VECTORS]
    found = _paired(codes, Characters("A\ud83d\ude00\ud83dB\ude00", *vectors))
    assert found.text == "A\U0001f600\ufffdB\ufffd"
    assert found.left.tolist() == [0, 1, 3, 4, 5]
