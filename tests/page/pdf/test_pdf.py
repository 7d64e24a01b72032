"""Text layers: places by arithmetic under every rotation and crop, what is no text, files that cannot be read."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.page.made import SAMPLES, needs_samples
from tests.page.pdf.made import Text, locked, pdf
from vertebra.errors import DataError
from vertebra.page import Line, Page, read_document
from vertebra.page.geometry import turned
from vertebra.page.pdf.opening import opened_pdf, pages_of, rendered
from vertebra.page.pdf.quality import why_garbage

pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed (vertebra[doc])")
HELLO = Text("Hello world", 100, 700, 20)


def lines(path: Path, **how) -> list[Line]:
    return list(read_document(path, when="never", **how).pages[0].lines)


def test_words_and_places_by_arithmetic(tmp_path: Path):
    """Helvetica at 20: `Hello` is 45.56 wide, its font stands 0.2 of its size below the line, give or take half a point."""
    (line,) = lines(pdf(tmp_path / "a.pdf", [[HELLO]]))
    assert [word.text for word in line.words] == ["Hello", "world"]
    assert line.words[0].box == pytest.approx((100, 76.3, 145.56, 96.3), abs=0.5)
    assert line.words[1].box.left == pytest.approx(151.12, abs=0.1)


@pytest.mark.parametrize("crop", [None, (50, 80, 500, 760)])
@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_rotation_and_crop_are_where_the_reader_sees_them(rotate: int, crop, tmp_path: Path):
    plain = lines(pdf(tmp_path / "a.pdf", [[HELLO]]))[0].words[0].box
    left, bottom, right, top = crop or (0, 0, 612, 792)
    shifted = type(plain)(plain.left - left, plain.top - (792 - top), plain.right - left, plain.bottom - (792 - top))
    page = read_document(pdf(tmp_path / "b.pdf", [[HELLO]], rotate=rotate, crop=crop), when="never").pages[0]
    expected = turned(shifted, rotate, (right - left, top - bottom))
    assert page.lines[0].words[0].box == pytest.approx(expected, abs=0.01)
    assert page.lines[0].text == "Hello world"
    assert page.size == ((right - left, top - bottom) if rotate % 180 == 0 else (top - bottom, right - left))


def test_text_that_runs_up_or_down_the_page(tmp_path: Path):
    up = Text("Hello world", 300, 300, 20, matrix="0 1 -1 0")
    (line,) = lines(pdf(tmp_path / "a.pdf", [[up]]))
    assert line.text == "Hello world"
    assert line.box.height > 4 * line.box.width
    # a page turned by 90 degrees brings it upright
    (line,) = lines(pdf(tmp_path / "b.pdf", [[up]], rotate=90))
    assert line.box.width > 4 * line.box.height


def test_what_is_outside_of_the_crop_box_is_not_there(tmp_path: Path):
    assert lines(pdf(tmp_path / "a.pdf", [[HELLO]], crop=(0, 0, 612, 400))) == []


def test_columns_of_a_table_are_lines_of_their_own(tmp_path: Path):
    found = lines(pdf(tmp_path / "a.pdf", [[Text("Total", 50, 600), Text("9.50", 400, 600), Text("next", 50, 570)]]))
    assert [line.text for line in found] == ["Total", "9.50", "next"]


def test_invisible_text_is_read_and_noted(tmp_path: Path):
    page = read_document(pdf(tmp_path / "a.pdf", [[Text("hidden", mode=3)]]), when="never").pages[0]
    assert page.text == "hidden"
    assert "6 characters are invisible" in page.notes[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no text layer"),
        ('"7+%-', "1 of 5 characters are letters"),
        ("ab\x01\x02cd", "2 of 6 characters are control"),
        ("\ufffd\ue000 word", "2 of 6"),
        ("Total 9.50", None),
        ("9.50 12.00 -3.10", None),
        ("--", None),
        ("مرحبا", None),
        ("中文。", None),
    ],
)
def test_whether_a_text_layer_is_garbage_and_why(text: str, reason: str | None):
    found = why_garbage(Page(lines=(Line(text),)))
    assert found is None if reason is None else reason in found


_STREAMED = """
import gc, json, sys, tracemalloc
from vertebra.page import stream_pages

next(iter(stream_pages(sys.argv[1], when="never")))  # what is imported once is not counted
tracemalloc.start()
peaks = []
for page in stream_pages(sys.argv[1], when="never"):
    if page.number % 10 == 0:
        gc.collect()  # what is let go is no longer held: only that is asked here, not when the collector comes
    if page.number % 100 == 0:
        assert page.lines[0].text == f"page {page.number - 1}"
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()
print(json.dumps(peaks))
"""


def test_500_pages_in_flat_memory(tmp_path: Path):
    """In a process of its own: here, threads of other tests would be counted too."""
    path = pdf(tmp_path / "a.pdf", [[Text(f"page {n}") for _ in range(30)] for n in range(500)])
    done = subprocess.run([sys.executable, "-c", _STREAMED, str(path)], capture_output=True, text=True, check=True)
    peaks = json.loads(done.stdout)
    assert len(peaks) == 5
    assert max(peaks) < 200_000  # one page takes 25 thousand bytes, 500 of them would take twelve million


def test_chosen_pages_and_one_that_is_not_there(tmp_path: Path):
    path = pdf(tmp_path / "a.pdf", [[Text("one")], [Text("two")]])
    assert [page.text for page in read_document(path, [2], when="never")] == ["two"]
    with pytest.raises(DataError, match=r"no page 3 in .*; its pages are 1 to 2"):
        read_document(path, [3], when="never")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no PDF, or is damaged"), (b"%PDF-1.4\nnothing", "no PDF, or is damaged"), (None, "is no file")],
)
def test_files_that_are_none(content: bytes | None, message: str, tmp_path: Path):
    if content is not None:
        (tmp_path / "a.pdf").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_document(tmp_path / "a.pdf")


def test_files_behind_a_password(tmp_path: Path):
    path = locked(tmp_path / "a.pdf", "open sesame")
    with pytest.raises(DataError, match="it is encrypted; give `password=`"):
        read_document(path, when="never")
    with pytest.raises(DataError, match="the password is wrong"):
        read_document(path, when="never", password="sesame")
    assert read_document(path, when="never", password="open sesame").pages[0].size == (612, 792)


def test_a_file_without_pages_and_a_page_without_text(tmp_path: Path):
    with pytest.raises(DataError, match="it is encrypted"):
        read_document(locked(tmp_path / "c.pdf", "x"))
    with pytest.raises(DataError, match="no PDF, or is damaged"):  # pdfium itself still speaks of the file before it
        read_document(pdf(tmp_path / "a.pdf", []))
    (page,) = read_document(pdf(tmp_path / "b.pdf", [[]]), when="never")
    assert page.lines == ()
    assert page.notes == ("it has no text layer, and OCR is off",)


def test_a_page_of_any_size_is_rendered_within_its_pixels(tmp_path: Path):
    path = pdf(tmp_path / "a.pdf", [[HELLO]], media=(14_400, 14_400))
    with opened_pdf(path) as document:
        for _, page in pages_of(document, path):
            picture = rendered(page, 200, 90_000)  # at 200 dpi it has 1.6 thousand million
    assert 85_000 < picture.width * picture.height < 91_500


def test_cut_off_files_are_read_or_refused_in_our_words(tmp_path: Path):
    whole = pdf(tmp_path / "a.pdf", [[HELLO]]).read_bytes()
    for length in range(20, len(whole), 60):
        (tmp_path / "b.pdf").write_bytes(whole[:length])
        with contextlib.suppress(DataError):  # nothing else
            read_document(tmp_path / "b.pdf", when="never")


@needs_samples
def test_real_files():
    encrypted = SAMPLES / "pdf" / "password-example.pdf"
    with pytest.raises(DataError, match="encrypted; give `password=`"):
        read_document(encrypted)
    with pytest.raises(DataError, match="password is wrong"):
        read_document(encrypted, password="no")
    with pytest.raises(DataError, match="damaged"):
        read_document(SAMPLES / "scans" / "invalid.pdf")
    garbage = read_document(SAMPLES / "scans" / "truetype_font_nomapping.pdf", when="never").pages[0]
    assert "garbage" in garbage.notes[0]
    turned_page = read_document(SAMPLES / "pdf" / "senate-expenditures.pdf").pages[0]
    assert turned_page.lines[0].text == "DOCUMENT NO."
    assert turned_page.lines[0].box == pytest.approx((77.66, 104.97, 124.16, 110.9), abs=0.5)
