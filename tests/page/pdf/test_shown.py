"""What a reader sees of a PDF is what is read: through every box of a page, in the fields of forms, on scans with a stamp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.page.pdf.made import Filled, Text, pdf
from vertebra.errors import DataError
from vertebra.page import Page, read_document
from vertebra.page.geometry import Box
from vertebra.page.pdf.forms import TICK
from vertebra.page.pdf.opening import opened_pdf, pages_of, rendered
from vertebra.page.pdf.quality import why_scan
from vertebra.page.pdf.reading import text_page

pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed (vertebra[doc])")
HELLO = Text("Hello", 300, 400, 20)


def read(path: Path) -> Page:
    return read_document(path, when="never").pages[0]


def ink(path: Path, scale: int = 2) -> Box:
    """Where a page's picture is dark, in points."""
    with opened_pdf(path) as document:
        for _, page in pages_of(document, path):
            dark = np.array(rendered(page, 72 * scale, 10**7).convert("L")) < 128
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    return Box(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1).scaled(1 / scale, 1 / scale)


sides = st.tuples(st.integers(-90, 290), st.integers(-90, 390), st.integers(380, 900), st.integers(430, 990))


@given(media=sides, crop=st.none() | sides, rotate=st.sampled_from([0, 90, 180, 270, -90]))
def test_boxes_lie_where_the_page_is_drawn(media, crop, rotate, tmp_path_factory: pytest.TempPathFactory):
    """The boxes of a page in any position to each other; the plain twin is the page's picture."""
    path = pdf(tmp_path_factory.mktemp("shown") / "a.pdf", [[HELLO]], media=media, crop=crop, rotate=rotate)
    page = read(path)
    (line,) = page.lines
    seen, box = ink(path), line.box
    assert box is not None
    assert box.left - 1 <= seen.left
    assert box.top - 1 <= seen.top
    assert box.right + 1 >= seen.right
    assert box.bottom + 1 >= seen.bottom
    assert page.notes == ()


def test_what_was_filled_into_a_form(tmp_path: Path):
    fields = (
        Filled("Jane Doe"),
        Filled("two\\nrows", (300, 600, 500, 640), rows=True),
        Filled("Yes", (100, 550, 112, 562), "Btn"),
        Filled("Off", (100, 520, 112, 532), "Btn"),
        Filled("Blue", (300, 500, 400, 520), "Ch"),
        Filled("nobody sees it", (300, 450, 400, 470), flags=2),
        Filled("", (300, 400, 400, 420)),
    )
    texts = [Text("Name", 100, 700), Text("Below", 100, 300)]
    page = read(pdf(tmp_path / "a.pdf", [texts], fields=fields))
    assert [line.text for line in page.lines] == ["Name", "Jane Doe", "two", "rows", TICK, "Blue", "Below"]
    assert page.lines[1].box == pytest.approx((300, 72, 500, 102), abs=0.01)
    assert page.lines[3].box == pytest.approx((300, 172, 500, 192), abs=0.01)
    assert "5 lines were filled into fields of a form" in page.notes[0]


@pytest.mark.parametrize("rotate", [90, 180, 270])
def test_fields_are_turned_with_their_page(rotate: int, tmp_path: Path):
    """The field around a text holds it, however the page is turned."""
    around = Filled("Hello there", (295, 390, 500, 425))
    page = read(pdf(tmp_path / "a.pdf", [[HELLO]], rotate=rotate, fields=(around,)))
    text, field = sorted(page.lines, key=lambda line: line.text)
    assert text.box is not None
    assert field.box is not None
    assert field.box.left <= text.box.left < text.box.right <= field.box.right
    assert field.box.top <= text.box.top < text.box.bottom <= field.box.bottom


def test_a_form_that_is_damaged_takes_no_page_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import pypdfium2

    def fail(document: pypdfium2.PdfDocument) -> None:
        raise pypdfium2.PdfiumError("no form")

    monkeypatch.setattr(pypdfium2.PdfDocument, "init_forms", fail)
    assert read(pdf(tmp_path / "a.pdf", [[HELLO]], fields=(Filled("Jane Doe"),))).text == "Hello"


def why(path: Path) -> str | None:
    with opened_pdf(path) as document:
        for number, page in pages_of(document, path):
            return why_scan(page, text_page(page, number))
    raise AssertionError


STAMP = "Scanned with CamScanner, page 1 of 20"


@pytest.mark.parametrize(
    ("texts", "covered", "scan"),
    [
        ([Text(STAMP, 100, 10, 8)], True, True),
        ([Text(STAMP, 100, 780, 8), Text(STAMP, 100, 10, 8)], True, True),
        ([Text("DRAFT", 300, 400)], True, True),
        ([Text(STAMP, 100, 10, 8)], False, False),
        ([Text(STAMP, 100, 10, 8), Text("A title over a picture", 100, 400)], True, False),
        ([Text(STAMP * 6, 10, 10, 4)], True, False),
    ],
)
def test_a_stamp_makes_no_text_layer(texts: list[Text], covered: bool, scan: bool, tmp_path: Path):
    reason = why(pdf(tmp_path / "a.pdf", [texts], covered=covered))
    assert (reason is not None) is scan, reason


def test_filled_fields_on_a_scan_leave_it_a_scan(tmp_path: Path):
    fields = (Filled("a value of some length, in the middle"),)
    page = read_document(pdf(tmp_path / "a.pdf", [[]], fields=fields, covered=True), when="never").pages[0]
    assert "it has no text layer, and OCR is off" in page.notes[-1]
    assert page.text == "a value of some length, in the middle", "kept, where there is no OCR"


def test_a_format_is_of_pages_alone(tmp_path: Path):
    with pytest.raises(DataError, match="is a PDF, which is in no format of pages"):
        read_document(pdf(tmp_path / "a.pdf", [[HELLO]]), format="hocr")


def test_no_page_is_no_page(tmp_path: Path):
    path = pdf(tmp_path / "a.pdf", [[HELLO], [HELLO]])
    assert len(read_document(path, [], when="never")) == 0
    with pytest.raises(DataError, match="there is no page 3"):
        read_document(path, [3], when="never")
