"""Extractions drawn: boxes where the answers stand, texts as texts, pages without pictures or sizes too."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image

from vertebra.documents import Extraction, Found, draw_extraction, extraction_page
from vertebra.documents.drawing import COLORS, write_extraction_page, write_extraction_picture
from vertebra.errors import CheckpointError
from vertebra.page import Box, Document, Line, Page
from vertebra.page.pieces import TextPlace

EVIL = "</script><script>document.title='no'</script><b>"


def an_extraction() -> Extraction:
    lines = [Line(f"Shop {EVIL}", Box(10, 10, 90, 20)), Line("Total 9.50", Box(50, 80, 90, 90))]
    pages = (
        Page.of(lines, size=(100, 100), unit="point", number=1),
        Page.of([Line("Total 9.50", Box(500, 100, 900, 200))], size=(200, 400), unit="thousand", number=2),
        Page(lines=(Line("no places"),), number=3),
    )
    total = TextPlace(page=1, lines=(1,), boxes=(Box(70, 80, 90, 90),))
    again = TextPlace(page=2, lines=(0,), boxes=(Box(700, 100, 900, 200),))
    first = TextPlace(page=1, lines=(0,), boxes=(Box(10, 10, 90, 20),))
    item = Found(name="items", value="9.50", text="9.50", confidence=0.3, places=(total,))
    fields = {
        "total": Found(name="total", value=9.5, text="9.50", confidence=0.95, places=(total, again), note="assumed"),
        EVIL: Found(name=EVIL, value=EVIL, text=EVIL, confidence=0.6, places=(first,)),
        "date": Found(name="date", confidence=0.2),
        "items": Found(name="items", value=["9.50"], items=(item,)),
    }
    return Extraction(fields=fields, document=Document(pages, f"{EVIL}.pdf"), errors=(f"`x`: {EVIL}",), windows=2)


def test_the_page_holds_answers_and_boxes():
    text = extraction_page(an_extraction(), {1: Image.new("RGB", (300, 300), "white")})
    assert "http" not in text.replace("http-equiv", "").replace("xmlns='http", "")
    assert text.count("<script>document") == 0
    rects = re.findall(r"<rect data-field='([^']*)' class='(\w+)' x='([\d.]+)' y='([\d.]+)' width='([\d.]+)'", text)
    assert ("total", "good", "210.0", "240.0", "60.0") in rects  # points of 100 on a picture of 300
    assert ("total", "good", "560.0", "160.0", "160.0") in rects  # thousandths on a sheet of 800 by 1600
    assert ("items[0]", "bad", "210.0", "240.0", "60.0") in rects
    assert text.count("<tr data-field") == 4
    data = json.loads(re.search(r'id="extraction">(.*?)</script>', text, re.S)[1])
    assert data["fields"]["total"]["value"] == 9.5


def test_a_picture(tmp_path):
    found = an_extraction()
    page = found.document.page(1)
    made = draw_extraction(found, page, Image.new("RGB", (300, 300), "white"))
    assert made.getpixel((212, 240)) in (COLORS["good"], COLORS["bad"])
    assert made.size == (300, 300)
    write_extraction_picture(found, found.document.page(2), tmp_path / "two.png")
    with Image.open(tmp_path / "two.png") as two:
        assert two.size == (800, 1600)
        assert two.getpixel((561, 160)) == COLORS["good"]
    for write in (
        lambda path: write_extraction_page(found, path),
        lambda path: write_extraction_picture(found, page, path),
    ):
        with pytest.raises(CheckpointError, match="cannot be written"):
            write(tmp_path / "nowhere" / "x.out")
