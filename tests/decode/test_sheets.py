"""Pages of a trace are those of `page_row`: every line at its positions, with its slot and its box; drawn and printed."""

from __future__ import annotations

import json
import re
from io import StringIO

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.layout.made import document, model, picture
from vertebra.cli.trace import app
from vertebra.decode.tracing.html import trace_page
from vertebra.decode.tracing.terminal import print_trace
from vertebra.decode.tracing.trace import trace
from vertebra.layout import PageRecord, Renderer, box_part, lines_of, page_row
from vertebra.layout.manners import MANNERS

FAMILIES = ("tiny-llama2", "tiny-gpt2", "tiny-qwen2.5", "tiny-gemma2")


def traced(family: str, manner: str, seed: int = 3, pages: int = 2):
    one = model(family, manner, patches=manner == "doclaylm")
    record, renderer = PageRecord.of(one.record), Renderer.of(one)
    lines = lines_of(document(seed, pages), record)
    asked = [box_part((0.1, 0.2, 0.3, 0.4)), "?"]
    images = {number: picture(number) for number in range(1, pages + 1)} if manner == "doclaylm" else None
    row = page_row(lines, [(asked, None)], record, renderer, images=images)
    features = [one.prepare(row.items)] if row.items else None
    batch = one.collate([row.sequence], features, side="left")
    return lines, row, trace(one, batch, max_new_tokens=1)


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_lines_stand_where_the_row_has_them(family, manner):
    lines, row, reported = traced(family, manner)
    found = [[line for line in sheet.lines if not line.asked] for sheet in reported.pages]
    assert [len(own) for own in found] == [sum(line.page == number for line in lines) for number in (1, 2)]
    for line, sheet in zip(lines, [one for own in found for one in own], strict=True):
        at = row.places.at(line.page, line.number)
        assert (sheet.first, sheet.last) == (at[0], at[-1])
        assert sheet.text.split() == line.text.split()
        boxed = MANNERS[manner].boxes
        assert sheet.box == (list(map(float, line.box)) if line.box is not None and boxed else None)
        slots = [p for p in at.tolist() if row.sequence.slot[p, 0] >= 0 and boxed]
        assert sheet.slots == slots
    asked = [line for sheet in reported.pages for line in sheet.lines if line.asked]
    assert [line.box for line in asked] == ([[100, 200, 300, 400]] if MANNERS[manner].boxes else [])


def test_they_are_drawn_and_printed():
    lines, _, reported = traced("tiny-llama2", "doclaylm")
    page = trace_page(reported)
    sheets = page.split("class='card sheet'")[1:]
    assert len(sheets) == 2
    with_box = [line for line in lines if line.box is not None]
    assert sum(sheet.count("<g class='line'>") for sheet in sheets) == len(with_box)
    assert page.count("<g class='line asked'>") == 1
    first = with_box[0]
    x, y = re.search(r"<g class='line'>.*?<rect x='([\d.]+)' y='([\d.]+)'", sheets[0]).groups()
    assert (float(x), float(y)) == pytest.approx((first.box[0] * 0.7, first.box[1] * 0.99), abs=0.06)
    assert "</s>" not in page.split("<main>")[1].split("<script")[0]  # a text of the page, escaped
    out = StringIO()
    print_trace(reported, Console(file=out, width=160), details=0)
    printed = out.getvalue()
    assert "page 2" in printed
    assert all(line.text in printed for line in lines)
    assert f"{' '.join(map(str, first.box))}" in printed


def test_a_model_without_pages_has_none():
    one = model("tiny-llama2", "text")
    assert trace(one, "hello", max_new_tokens=1).pages == []


def test_the_command_line(tmp_path):
    folder, page = tmp_path / "m", tmp_path / "page.json"
    model("tiny-llama2", "laytext").save(folder)
    page.write_text(json.dumps([{"text": "Total 9.50", "box": [10, 20, 300, 40]}]))
    made = tmp_path / "x.html"
    result = CliRunner().invoke(
        app, [str(folder), "What?", "--page", str(page), "--max-new-tokens", "1", "--html", str(made)]
    )
    assert result.exit_code == 0, result.output
    assert "page 1" in result.output
    assert "10 20 300 40" in result.output
    assert made.read_text().count("<g class='line'>") == 1
