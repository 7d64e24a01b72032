"""What is written is read back equal, in every format; texts and places survive it; files of others say what we think."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.page.made import SAMPLES, SHARED, needs_samples, page
from vertebra.errors import DataError, UnknownNameError
from vertebra.page import FORMATS, Box, Document, Line, Page, Word, read_document, read_pages, to_text, write_pages

TEXTS = [name for name in FORMATS if name != "docvqa"]
ONE_PAGE = {"funsd", "cord", "sroie", "doclayllm", "rapidocr"}


def again(document: Document, name: str, folder: Path, **options) -> Document:
    path = write_pages(document, folder / f"x.{name}", name)
    return read_pages(path, size=document.pages[0].size, **options)


@pytest.mark.parametrize("name", TEXTS)
def test_written_and_read_back(name: str, tmp_path: Path):
    """The second reading equals the first, and the first has every text and place. The format is seen by itself."""
    count = 1 if name in ONE_PAGE else 3
    made = Document(tuple(page(seed, number=seed + 1) for seed in range(count)), f"x.{name}")
    once = again(made, name, tmp_path)
    assert again(once, name, tmp_path) == once
    assert again(made, name, tmp_path, format=name) == once
    assert [page.number for page in once] == [page.number for page in made]
    for found, given_page in zip(once, made, strict=True):
        assert [line.text for line in found.lines] == [line.text for line in given_page.lines]
        scale = given_page.to("relative") if found.unit == "relative" else given_page
        assert [line.box for line in found.lines] == [pytest.approx(line.box) for line in scale.lines]


@pytest.mark.parametrize("name", ["vertebra", "tesseract", "hocr", "alto", "page", "doctr"])
def test_words_and_confidences_survive(name: str, tmp_path: Path):
    made = page(3)
    (found,) = again(Document((made,)), name, tmp_path)
    assert [[(w.text, w.confidence) for w in line.words] for line in found.lines] == [
        [(w.text, w.confidence) for w in line.words] for line in made.lines
    ]


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["alto", "hocr", "page", "tesseract", "vertebra"]))
def test_a_page_of_formats_with_words_is_the_same_page(seed, name, tmp_path_factory):
    made = page(seed, name="x.png")
    (found,) = again(Document((made,)), name, tmp_path_factory.mktemp("x"))
    if name != "tesseract":  # which has no name of the picture
        assert found.name == "x.png"
    assert found.lines == made.lines
    assert found.size == made.size


@pytest.mark.parametrize(("unit", "size"), [("mm10", (2100, 2970)), ("inch1200", (9921, 14031)), ("pixel", (620, 877))])
def test_alto_in_each_of_its_units(unit: str, size: tuple[int, int], tmp_path: Path):
    made = Page.of([Line("Total", (100, 200.5, 300, 240))], size=size, unit=unit)
    (found,) = again(Document((made,)), "alto", tmp_path)
    assert f"<MeasurementUnit>{unit}<" in to_text(made, "alto")
    assert (found.unit, found.size, found.lines[0].box) == (unit, size, (100, 200.5, 300, 240))
    if unit == "mm10":  # 210 mm are 2480.3 pixels of 300 dpi
        assert found.to("pixel", dpi=300).size == pytest.approx((2480.3, 3507.9), abs=0.1)


@pytest.mark.parametrize("name", TEXTS)
def test_lines_without_boxes(name: str, tmp_path: Path):
    """Kept where the format can, else an error with the text."""
    made = Page.of([Line("somewhere", (1, 2, 3, 4)), Line("nowhere")], size=(10, 10))
    if name in ("vertebra", "alto", "page", "doclayllm"):
        (found,) = again(Document((made,)), name, tmp_path)
        assert found.lines[1].box is None
        assert found.lines[1].text == "nowhere"
    else:
        with pytest.raises(DataError, match="'nowhere' has no box"):
            to_text(made, name)


@pytest.mark.parametrize("name", sorted({*ONE_PAGE} - {"cord"}))
def test_a_format_without_a_page_size_asks_for_one(name: str, tmp_path: Path):
    from PIL import Image

    path = write_pages(page(0), tmp_path / "x", name)
    with pytest.raises(DataError, match=r"does not give its size.*size=.*image="):
        read_pages(path)
    Image.new("RGB", (400, 300)).save(tmp_path / "x.png")
    assert read_pages(path, image=tmp_path / "x.png").pages[0].size == (400, 300)
    assert read_pages(path, image=Image.new("L", (400, 300))).pages[0].size == (400, 300)


@pytest.mark.parametrize("name", sorted(ONE_PAGE))
def test_formats_of_one_page_a_file(name: str):
    with pytest.raises(DataError, match="one page a file, and the document has 2"):
        to_text(Document((page(0), page(1, number=2))), name)


@pytest.mark.parametrize("name", ["alto", "page"])
def test_a_character_that_xml_cannot_hold(name: str):
    with pytest.raises(DataError, match=r"U\+0007 in 'a\\x07'"):
        to_text(Page.of([Line("a\x07", (0, 0, 1, 1))], size=(9, 9)), name)


def bomb(root: str) -> str:
    inside = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    return f"{inside}<{root}><Layout><Page WIDTH='9' HEIGHT='9'>&b;</Page></Layout></{root}>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb("alto"), "entities of its own"),
        (bomb("PcGts"), "entities of its own"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><alto>&x;</alto>', "entities of its own"),
        ("<alto>" * 300 + "</alto>" * 300, "nested more than 200"),
        ("<alto></alto>", "holds no page"),
        ("<alto><Layout>", "cannot be read as alto"),
        ("<html><body>nothing</body></html>", "no known format"),
        ("", "is empty"),
        ("\n", "is empty"),
        ("hello", "no known format"),
        ('{"form": [', "begins as JSON"),
        ('{"form": [{"text": 5, "box": [1, 2, 3, 4]}]}', "is no text"),
        ('{"form": [{"text": "a", "box": [1, 2, 3]}]}', "cannot be read as funsd"),
        ('{"form": [{"text": "a", "box": [1, "two", 3, 4]}]}', "cannot be read as funsd"),
        ('{"schema_name": "DoclingDocument"}', "cannot be read as docling"),
        ("[" * 5000, "nested too deeply"),
        ("<alto><Description><MeasurementUnit>cm</MeasurementUnit></Description></alto>", "ALTO has pixel, mm10"),
        ("1,2,3,4,5,6,7,8,ok\n1,2,3\n", "line 2 has 3 cells"),
        ("level\tpage_num\tblock_num\n5\t1\n", "a row of 2 cells"),
    ],
)
def test_damaged_files(text: str, message: str, tmp_path: Path):
    (tmp_path / "x").write_text(text)
    with pytest.raises(DataError, match=message):
        read_pages(tmp_path / "x", size=(100, 100))


def test_names_and_places(tmp_path: Path):
    (tmp_path / "x").write_text("1,2,3,4,5,6,7,8,ok")
    with pytest.raises(UnknownNameError, match="hocr"):
        read_pages(tmp_path / "x", "hocrr")
    with pytest.raises(DataError, match="cannot be read"):
        read_pages(tmp_path / "none")


@pytest.mark.parametrize("name", ["tesseract", "hocr", "alto", "page", "funsd", "paddle", "vertebra"])
def test_boxes_that_cannot_be(name: str, tmp_path: Path):
    """Written unseen (a page made past its checks), refused by default and mended by choice."""
    bad = Page(lines=(Line("far", Box(500, 500, 510, 510)), Line("ok", Box(1, 2, 3, 4))), size=(100, 100))
    write_pages(bad, tmp_path / "x", name)
    with pytest.raises(DataError, match="outside of 100 × 100"):
        read_pages(tmp_path / "x", size=(100, 100))
    (made,) = read_pages(tmp_path / "x", size=(100, 100), on_bad="repair")
    assert [line.box for line in made.lines] == [None, (1, 2, 3, 4)]
    assert any("outside" in note for note in made.notes)


WORDS = [{"text": "Date:", "box": [1, 2, 30, 12]}]
FORM = {
    "form": [
        {
            "id": 7,
            "text": "Date:",
            "box": [1, 2, 30, 12],
            "label": "question",
            "linking": [[7, 9]],
            "words": [{"text": "Date:", "box": [1, 2, 30, 12]}],
        },
        {"id": 9, "text": "May 1", "box": [40, 2, 80, 12], "label": "answer", "linking": [[7, 9]], "words": []},
        {"id": 3, "text": "", "box": [0, 0, 1, 1], "label": "other", "linking": [], "words": []},
    ]
}


def test_funsd_links_once_by_line_numbers():
    (made,) = read_pages(FORM, size=(100, 100))
    assert made.facts["links"] == [[0, 1]]
    assert [line.label for line in made.lines] == ["question", "answer", "other"]
    assert [line["text"] for line in made.part()["lines"]] == ["Date:", "May 1"]


def receipt(words: list[tuple[str, int]]) -> dict:
    quad = dict(x1=1, y1=1, x2=9, y2=1, x3=9, y3=5, x4=1, y4=5)  # noqa: C408
    rows = [{"quad": quad, "is_key": key, "row_id": 4, "text": text} for text, key in words]
    return {
        "gt_parse": {"total": {"total_price": "9.50"}},
        "meta": {"version": "2", "split": "test", "image_id": 3, "image_size": {"width": 10, "height": 20}},
        "valid_line": [{"words": rows, "category": "total.total_price", "group_id": 2, "sub_group_id": 0}],
        "roi": {},
        "repeating_symbol": [],
        "dontcare": [],
    }


def test_cord_keeps_all_that_it_has():
    data = receipt([("TOTAL", 1), ("9.50", 0)])
    (made,) = read_pages(data)
    assert [word.label for word in made.lines[0].words] == ["key", None]
    assert made.facts["fields"] == data["gt_parse"]
    assert json.loads(to_text(made, "cord")) == data
    assert read_pages({"ground_truth": json.dumps(data)}) == read_pages(data)


def test_sroie_texts_with_commas_and_the_files_beside(tmp_path: Path):
    for folder in ("box", "key", "img"):
        (tmp_path / folder).mkdir()
    (tmp_path / "box" / "7.csv").write_bytes(b"1,1,9,1,9,5,1,5,NO. 3, JALAN\xe9, 5\r\n\r\n2,2,9,3,9,5,1,5,x\r\n")
    (tmp_path / "key" / "7.json").write_text('{"total": "9.50"}')
    from PIL import Image

    Image.new("L", (20, 30)).save(tmp_path / "img" / "7.jpg")
    (made,) = read_pages(tmp_path / "box" / "7.csv")
    assert made.lines[0].text == "NO. 3, JALAN\ufffd, 5"
    assert made.lines[0].quad is None
    assert made.lines[1].quad == ((2, 2), (9, 3), (9, 5), (1, 5))
    assert (made.size, made.facts["fields"], made.name) == ((20, 30), {"total": "9.50"}, "7")


def test_docvqa_questions_by_page(tmp_path: Path):
    rows = [
        {"questionId": n, "question": f"q{n}", "image": f"documents/p_{n // 2}.png", "docId": 1, "answers": ["a", "b"]}
        for n in range(3)
    ]
    data = {"dataset_name": "docvqa", "dataset_split": "val", "data": rows}
    made = read_pages(data)
    assert [len(page.facts["questions"]) for page in made] == [2, 1]
    assert made.pages[1].facts["questions"][0]["answers"] == ["a", "b"]
    assert json.loads(to_text(made, "docvqa")) == data
    with pytest.raises(DataError, match="questions alone"):
        to_text(page(0), "docvqa")


def test_microsoft_read_in_inches():
    line = {
        "boundingBox": [1, 1, 2, 1, 2, 2, 1, 2],
        "text": "a",
        "words": [{"boundingBox": [1, 1, 2, 1, 2, 2, 1, 2], "text": "a", "confidence": "Low"}],
    }
    (made,) = read_pages(
        {"recognitionResults": [{"page": 1, "width": 8.5, "height": 11, "unit": "inch", "lines": [line]}]}
    )
    assert made.size == (612, 792)
    assert made.lines[0].box == (72, 72, 144, 144)
    assert made.lines[0].words[0].confidence == 0.3


def test_laytextllm_keeps_its_question():
    row = {
        "source": "x",
        "ocr": ["a"],
        "poly": [[1, 1, 5, 1, 5, 4, 1, 4]],
        "img_size": {"h": 10, "w": 20},
        "question": "q",
        "answer": "a",
        "metadata": "{}",
    }
    (made,) = read_pages([row])
    assert made.facts["questions"] == [{"question": "q", "answers": ["a"]}]
    assert json.loads(to_text(made, "laytextllm")) == [row]


def test_doctr_has_height_before_width_and_tables_apart():
    word = {"value": "9.50", "confidence": 0.9, "geometry": [[0.5, 0.25], [0.75, 0.5]]}
    cell = {"row_start": 0, "row_end": 0, "col_start": 0, "col_end": 0, "geometry": word["geometry"], "words": [word]}
    data = {"pages": [{"page_idx": 0, "dimensions": [100, 200], "blocks": [], "tables": [{"cells": [cell]}]}]}
    (made,) = read_pages(data)
    assert made.to("pixel").lines[0].box == (100, 25, 150, 50)
    assert made.lines[0].label == "table_cell"


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_paddle_boxes_are_turned_back(angle: int):
    """The image that was read is the source's turned counter-clockwise by the angle; so is the page drawn here."""
    given_page = Page.of([Line("Total", (10, 20, 60, 40))], size=(100, 200))
    seen = given_page.turned(-angle)
    box = list(seen.lines[0].box)
    result = {
        "res": {
            "input_path": "a.png",
            "rec_texts": ["Total"],
            "rec_scores": [0.5],
            "rec_boxes": [box],
            "doc_preprocessor_res": {"angle": angle},
        }
    }
    (made,) = read_pages(result, size=(100, 200))
    assert made.size == (100, 200)
    assert made.lines[0].box == (10, 20, 60, 40)


def test_paddle_in_all_its_shapes():
    one = {"rec_texts": ["a"], "rec_scores": [0.5], "rec_polys": [[[1, 1], [5, 1], [5, 4], [1, 4]]]}
    old = [[[[1, 1], [5, 1], [5, 4], [1, 4]], ["a", 0.5]]]
    shapes = [one, {"res": one}, {"result": {"ocrResults": [{"prunedResult": one}]}}, [one], old, [old]]
    assert len({to_text(read_pages(shape, size=(9, 9)), "paddle") for shape in shapes}) == 1
    unwarped = {**one, "doc_preprocessor_res": {"angle": -1, "model_settings": {"use_doc_unwarping": True}}}
    assert "unwarped" in read_pages(unwarped, size=(9, 9)).pages[0].notes[0]


def docling(**more) -> dict:
    prov = [
        {"page_no": 1, "bbox": {"l": 10, "t": 90, "r": 50, "b": 80, "coord_origin": "BOTTOMLEFT"}, "charspan": [0, 5]},
        {"page_no": 2, "bbox": {"l": 10, "t": 10, "r": 50, "b": 20, "coord_origin": "TOPLEFT"}, "charspan": [6, 9]},
    ]
    text = {
        "self_ref": "#/texts/0",
        "label": "text",
        "text": "first two",
        "orig": "first two",
        "prov": prov,
        "children": [],
    }
    foot = {**text, "self_ref": "#/texts/1", "content_layer": "furniture"}
    size = {"size": {"width": 100, "height": 100}}
    body = {"self_ref": "#/body", "children": [{"$ref": "#/texts/1"}, {"$ref": "#/texts/0"}]}
    return {
        "schema_name": "DoclingDocument",
        "body": body,
        "texts": [text, foot],
        "pages": {"1": size, "2": size},
        **more,
    }


def test_docling_one_text_on_two_pages_each_with_its_own_origin():
    made = read_pages(docling())
    assert [[(line.text, tuple(line.box)) for line in page.lines] for page in made] == [
        [("first", (10, 10, 50, 20))],
        [("two", (10, 10, 50, 20))],
    ]
    assert {page.unit for page in made} == {"point"}


def test_pages_one_a_line_of_a_packed_file(tmp_path: Path):
    import gzip

    rows = [
        {
            "name": str(n),
            "size": [10, 10],
            "lines": [{"text": "a", "quad": [1, 1, 5, 1, 5, 4, 1, 4]}],
            "fields": {"total": "1"},
        }
        for n in range(3)
    ]
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as file:
        file.write("\n".join(json.dumps(row) for row in rows))
    made = read_pages(tmp_path / "x.jsonl.gz")
    assert [page.number for page in made] == [1, 2, 3]
    assert made.pages[2].facts["fields"] == {"total": "1"}
    assert made.pages[2].name == "2"
    (tmp_path / "bad.jsonl").write_text(json.dumps(rows[0]) + "\n{")
    with pytest.raises(DataError, match=r"line 2 of .*bad.jsonl"):
        read_pages(tmp_path / "bad.jsonl")


def test_hocr_as_others_write_it():
    text = (
        "<html><body><div class='ocr_page' title='image \"a; b.png\"; bbox 0 0 100 200; ppageno 0; scan_res 300 300'>"
        "<p class='ocr_par'><span class='ocr_header' title=\"bbox 1 2 30 12; x_size 10\">"
        "<span class='ocrx_word' title='bbox 1 2 9 12; x_wconf 92'><strong>Tom</strong> &amp; <em>Co</em></span>"
        "<span class='ocrx_word' title='bbox 10 2 30 12'> </span></span><br>"
        "<span class='ocr_line' title='bbox 1 20 30 32'>bare text</span></p></div></body></html>"
    )
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".hocr") as file:
        file.write(text)
        file.flush()
        (made,) = read_pages(file.name)
    assert [(line.text, line.label) for line in made.lines] == [("Tom & Co", "ocr_header"), ("bare text", None)]
    assert (made.name, made.dpi, made.size) == ("a; b.png", 300, (100, 200))
    assert made.lines[0].words == (Word("Tom & Co", Box(1, 2, 9, 12), confidence=0.92),)


ROW = {"size": [90, 90], "lines": [{"text": "a", "box": [1, 2, 3, 4]}]}
PADDLE = {"rec_texts": ["a"], "rec_scores": [0.9], "rec_polys": [[[1, 2], [3, 2], [3, 4], [1, 4]]], "page_index": 0}
READ = {"page": 1, "width": 90, "height": 90, "lines": [{"text": "a", "boundingBox": [1, 2, 3, 2, 3, 4, 1, 4]}]}


@pytest.mark.parametrize(
    "content",
    [{"pages": [{**ROW, "number": 1}] * 3}, [PADDLE] * 3, {"recognitionResults": [READ] * 3}],
    ids=["vertebra", "paddle", "microsoft-read"],
)
def test_a_number_that_a_file_has_twice(content, tmp_path):
    """Nothing is lost: the pages are numbered in their order, and each has a note of it."""
    (tmp_path / "x.json").write_text(json.dumps(content))
    for made in (read_pages(tmp_path / "x.json", size=(90, 90)), read_pages(content, size=(90, 90))):
        assert [(page.number, page.text) for page in made] == [(1, "a"), (2, "a"), (3, "a")]
        assert all("where a number is there twice" in page.notes[-1] for page in made)
    assert [page.number for page in read_document(tmp_path / "x.json", [3, 1, 3], size=(90, 90))] == [3, 1]


@needs_samples
@pytest.mark.parametrize(
    ("file", "lines", "first"),
    [
        ("alto/bsb00084914_00007.xml", 31, "בשאול"),
        ("page/explicit_ro.xml", 5, "Line 1 in region 2"),
        ("page/170025120000003_0074.xml", 44, "$pag:39"),
        ("hocr/arabic.hocr", 3, "مرحبا بالعالم"),
        ("hocr/latin.hocr", 3, "The quick brown fox"),
        ("doctr/doctr_shape_042.json", 56, "Geoventure"),
        ("paddle/paddleocr3_shape_042.json", 56, "Geoventure"),
        ("paddle/paddleocr2_shape_042.json", 56, "Geoventure"),
        ("paddle/rapidocr_042.json", 56, "Geoventure"),
        ("docling/ocr_test_rotated_90.tesseract.full_page.json", 2, "Docling bundles"),
    ],
)
def test_real_files(file: str, lines: int, first: str):
    (made,) = read_pages(SAMPLES / file, size=(4000, 4000))
    assert len(made.lines) == lines
    assert made.lines[0].text.startswith(first)
    assert not any("mended" in note for note in made.notes)


@needs_samples
def test_real_receipts():
    made = read_pages(SHARED / "sroie-500.jsonl.gz")
    assert len(made) == 500
    assert sum(len(page.lines) for page in made) == 26802
