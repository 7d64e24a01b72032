"""Files as the programs of others write them, where their shape leaves something to the reader."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.page.formats.test_formats import TEXTS, again
from vertebra.errors import DataError
from vertebra.page import Box, Document, Line, Page, Word, read_pages, to_text
from vertebra.page.page import line_of

POLY = [[1, 1], [5, 1], [5, 4], [1, 4]]


def read(folder: Path, text: str, **options) -> Page:
    (folder / "x").write_text(text, encoding="utf-8")
    return read_pages(folder / "x", **options).pages[0]


@pytest.mark.parametrize("inside", [-1, 0, None])
@pytest.mark.parametrize("angle", [0, 90, 180, 270])
@pytest.mark.parametrize("wrapped", ["overall_ocr_res", "res", "prunedResult"])
def test_what_stands_beside_a_result_of_paddle_counts(wrapped: str, angle: int, inside: int | None):
    """The angle, the page and the file are the same inside of the result and beside it."""
    seen = Page.of([Line("Total", (10, 20, 60, 40))], size=(100, 200)).turned(-angle)
    result = {"rec_texts": ["Total"], "rec_scores": [0.5], "rec_boxes": [list(seen.lines[0].box)]}
    beside = {"input_path": "a.pdf", "page_index": 3, "doc_preprocessor_res": {"angle": angle}}
    own = {"input_path": None, "page_index": None, "doc_preprocessor_res": inside and {"angle": inside}}
    (outside,) = read_pages({**beside, wrapped: {**result, **own}}, size=(100, 200))
    assert (outside,) == read_pages({**result, **beside}, size=(100, 200)).pages
    assert (outside.number, outside.name, outside.lines[0].box) == (4, "a.pdf", (10, 20, 60, 40))


def test_paddle_unwarped_outside_and_the_answer_of_a_layout_service():
    result = {"rec_texts": ["a"], "rec_scores": [0.5], "rec_polys": [POLY]}
    beside = {"doc_preprocessor_res": {"angle": -1, "model_settings": {"use_doc_unwarping": True}}}
    answer = {"result": {"layoutParsingResults": [{"prunedResult": {**beside, "overall_ocr_res": result}}]}}
    assert "unwarped" in read_pages(answer, size=(9, 9)).pages[0].notes[0]


@pytest.mark.parametrize("pages", [[None, 1], [1, None], [None, None, 1], [[], 1], [None], [None, None]])
def test_blank_pages_of_the_old_paddle(pages: list, tmp_path: Path):
    rows = [[[POLY, ["a", 0.5]]] if page == 1 else page for page in pages]
    (tmp_path / "x").write_text(json.dumps(rows))
    assert [len(page.lines) for page in read_pages(tmp_path / "x", size=(9, 9))] == [int(page == 1) for page in pages]


def regions(inside: str) -> str:
    return f'<PcGts><Page imageWidth="100" imageHeight="80">{inside}</Page></PcGts>'


def region(box: str, text: str = "", inside: str = "") -> str:
    own = f"<TextEquiv><Unicode>{text}</Unicode></TextEquiv>" if text else ""
    return f'<TextRegion id="r"><Coords points="{box}"/>{inside}{own}</TextRegion>'


def row(box: str, text: str = "") -> str:
    return region(box, text).replace("TextRegion", "TextLine")


BOX = "10,10 50,10 50,30 10,30"
UPPER, LOWER = "10,10 50,10 50,20 10,20", "10,20 50,20 50,30 10,30"


@pytest.mark.parametrize(
    ("inside", "lines"),
    [
        (region(BOX, "one\ntwo"), ["one", "two"]),
        (region(BOX, "one\n\n two \n"), ["one", "two"]),
        ("<TableRegion>" + region(BOX, "one\ntwo") + "</TableRegion>", ["one", "two"]),
        (region(BOX, "", region(BOX, "one\ntwo")), ["one", "two"]),
        # lines with a text count, and the region's, which repeats them, does not
        (region(BOX, "one\ntwo", row(UPPER, "one") + row(LOWER, "two")), ["one", "two"]),
        (region(BOX, "one\ntwo", region(BOX, "", row(UPPER, "one") + row(LOWER, "two"))), ["one", "two"]),
        # lines that were drawn and not written down have places alone
        (region(BOX, "one\ntwo", row(UPPER) + row(LOWER)), ["one", "two"]),
    ],
)
def test_a_text_of_a_region_becomes_lines(inside: str, lines: list[str], tmp_path: Path):
    page = read(tmp_path, regions(inside))
    assert [line.text for line in page.lines] == lines
    assert [line.box for line in page.lines] == [(10, 10, 50, 20), (10, 20, 50, 30)]
    assert page.in_order("top") == page


def test_a_region_of_one_row_keeps_its_corners_and_the_guess_is_noted(tmp_path: Path):
    page = read(tmp_path, regions(region("10,10 50,12 50,30 10,28", "one") + region(BOX) + region("", "nowhere")))
    assert [(line.text, line.box) for line in page.lines] == [("one", (10, 10, 50, 30)), ("nowhere", None)]
    assert page.lines[0].quad == ((10, 10), (50, 12), (50, 30), (10, 28))
    assert "regions without lines" in page.notes[0]


def hocr(inside: str, facts: str = "") -> str:
    return f"<body><div class='ocr_page' title='bbox 0 0 100 100; {facts}'>{inside}</div></body>"


def word(text: str) -> str:
    return f"<span class='ocrx_word' title='bbox 1 2 30 12'>{text}</span>"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"Invoice no {word('4711')} of May", ["Invoice", "no", "4711*", "of", "May"]),
        (f"{word('Total')}: {word('9.50')} €", ["Total:*", "9.50*", "€"]),
        (f"({word('4711')}), {word('a')}-{word('b')}", ["(4711),*", "a-*", "b*"]),
        (f"\n {word('a')}\n {word('b')} \n", ["a*", "b*"]),
        (f"{word('a')}{word('b')}", ["a*", "b*"]),
        (f"<b>No</b> {word('<i>4711</i>')} <b>of</b>", ["No", "4711*", "of"]),
    ],
)
def test_loose_text_of_a_line_with_words(line: str, words: list[str], tmp_path: Path):
    """`*`: with the word's box. Nothing of the line is lost, and it can be written in every format."""
    page = read(tmp_path, hocr(f"<span class='ocr_line' title='bbox 1 2 90 12'>{line}</span>"))
    (found,) = page.lines
    assert [one.text + "*" * (one.box is not None) for one in found.words] == words
    assert found.text == " ".join(words).replace("*", "")
    for name in TEXTS:
        (back,) = again(Document((page,)), name, tmp_path, format=name)
        assert [one.text for one in back.lines] == [found.text]


def test_text_outside_of_lines_is_noted(tmp_path: Path):
    page = read(tmp_path, hocr(f"<p class='ocr_par'>Dear Sir</p> and <span class='ocr_line'>{word('a')}</span>"))
    assert page.text == "a"
    assert page.notes == ("2 texts outside of lines were left out: 'Dear Sir' …",)


@pytest.mark.parametrize("resolution", ["0 0", "0", "-1 -1", "nan nan"])
def test_a_resolution_that_is_none(resolution: str, tmp_path: Path):
    page = read(tmp_path, hocr(word("a"), f"scan_res {resolution}"))
    assert page.dpi is None
    for given in (page, replace(page, dpi=0), replace(page, dpi=-1)):
        with pytest.raises(DataError, match="dpi"):
            given.to("mm10")


@pytest.mark.parametrize(
    "name", ["a.png", 'a"b;c.png', "a'b.png", "a;b.png", '"a".png', "a 'b'.png", "'a'", "C:\\a.png"]
)
def test_names_of_pictures_with_quotes(name: str, tmp_path: Path):
    made = Page.of([Line("a", (1, 2, 3, 4))], size=(10, 10), name=name)
    for format in ("hocr", "alto", "page", "vertebra", "paddle"):
        assert again(Document((made,)), format, tmp_path).pages[0].name == name


@pytest.mark.parametrize("text", ["a\tb", "a  b", "a\tb c\td", "a\xa0b"])
@pytest.mark.parametrize("name", TEXTS)
def test_blanks_of_other_kinds(name: str, text: str, tmp_path: Path):
    """They are read back as they are, but where words of HTML and cells of a table cannot hold them: as one blank."""
    made = Page.of([Line(text, Box(1, 2, 30, 12)), line_of([Word(text, Box(1, 20, 30, 32))])], size=(100, 100))
    expected = " ".join(text.split()) if name in ("tesseract", "hocr") else text
    (found,) = again(Document((made,)), name, tmp_path)
    assert [line.text for line in found.lines] == [expected] * 2


def alto(inside: str, page: str = "", unit: str = "pixel") -> str:
    line = '<TextLine HPOS="110" VPOS="950" WIDTH="700" HEIGHT="20"><String CONTENT="foot"/></TextLine>'
    return (
        f"<alto><Description><MeasurementUnit>{unit}</MeasurementUnit></Description><Layout><Page {page}>"
        + inside.replace("@", f"<TextBlock>{line}</TextBlock>")
        + "</Page></Layout></alto>"
    )


SPACE = '<PrintSpace HPOS="100" VPOS="100" WIDTH="800" HEIGHT="900">@</PrintSpace>'
MARGIN = '<RightMargin HPOS="900" VPOS="0" WIDTH="200" HEIGHT="1200"/>'


@pytest.mark.parametrize(
    ("text", "options", "size"),
    [
        (alto(SPACE), {}, (900, 1000)),
        (alto(SPACE + MARGIN), {}, (1100, 1200)),
        (alto(SPACE, unit="mm10"), {"size": (5, 5)}, (900, 1000)),
        (alto(SPACE), {"size": (1500, 1600)}, (1500, 1600)),
        (alto(SPACE, 'WIDTH="1300" HEIGHT="1400"'), {"size": (5, 5)}, (1300, 1400)),
        (alto(SPACE.replace('HPOS="100" VPOS="100"', "")), {}, (800, 900)),
    ],
)
def test_a_page_of_alto_ends_where_its_space_does(text: str, options: dict, size: tuple, tmp_path: Path):
    page = read(tmp_path, text, on_bad="repair", **options)
    assert page.size == size
    if size[1] >= 970:
        assert page.lines[0].box == (110, 950, 810, 970)
    assert any("no size" in note for note in page.notes) == (size[0] in (800, 900, 1100))


@pytest.mark.parametrize(("folder", "suffix"), [("key", ".json"), ("entities", ".txt")])
def test_fields_of_sroie_in_both_layouts(folder: str, suffix: str, tmp_path: Path):
    for name in ("box", folder):
        (tmp_path / name).mkdir()
    (tmp_path / "box" / "7.txt").write_text("1,1,9,1,9,5,1,5,TOTAL 9.50\n")
    (tmp_path / folder / f"7{suffix}").write_bytes('{"company": "CAFÉ"}'.encode("latin-1"))
    (page,) = read_pages(tmp_path / "box" / "7.txt", size=(10, 10))
    assert page.facts["fields"] == {"company": "CAF\ufffd"}
    (tmp_path / folder / f"7{suffix}").write_text("total 9.50")
    with pytest.raises(DataError, match=f"7{suffix}` is no JSON"):
        read_pages(tmp_path / "box" / "7.txt", size=(10, 10))


def test_cord_with_words_that_are_not_those_of_the_file():
    """Its numbers of rows are a word each; words that were taken away take them along."""
    made = Page.of([line_of([Word("a", Box(1, 1, 2, 2)), Word("b", Box(3, 1, 4, 2))])], size=(9, 9))
    (page,) = read_pages(json.loads(to_text(made, "cord")))
    bare = replace(page, lines=tuple(replace(line, words=()) for line in page.lines))
    assert [len(line["words"]) for line in json.loads(to_text(bare, "cord"))["valid_line"]] == [1]
