"""`vertebra doc read`: printed, as JSON, in another format, drawn; options that make no sense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.page.pdf.made import Text, pdf
from vertebra.cli.doc import app
from vertebra.errors import VertebraError
from vertebra.page import read_pages


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["read", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture
def invoice(tmp_path: Path) -> Path:
    return pdf(tmp_path / "a.pdf", [[Text("Total 9.50", 50, 600)], [Text("second", 50, 600)]])


def test_printed_and_as_json(invoice: Path, tmp_path: Path):
    shown = run(invoice, "--ocr", "none")
    assert "page 2" in shown
    assert "Total 9.50" in shown
    found = json.loads(run(invoice, "--json", "--pages", "1", "--unit", "thousand"))
    assert found["pages"][0]["lines"][0]["text"] == "Total 9.50"
    assert max(found["pages"][0]["lines"][0]["box"]) <= 1000
    assert "ocr_page" in run(invoice, "--to", "hocr")
    assert "written to" in run(invoice, "--to", "alto", "--out", tmp_path / "a.xml")
    assert read_pages(tmp_path / "a.xml").text == "Total 9.50\n\nsecond"


def test_drawn(invoice: Path, tmp_path: Path):
    run(invoice, "--draw", tmp_path / "out.png")
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out-1.png", "out-2.png"]
    with Image.open(tmp_path / "out-1.png") as made:
        assert (200, 30, 30) in {color for _, color in made.convert("RGB").getcolors(1 << 24)}
    run(invoice, "--json", "--out", tmp_path / "a.json")
    run(tmp_path / "a.json", "--draw", tmp_path / "bare.png", "--pages", "2")
    assert (tmp_path / "bare.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--order", "up"), "expected one of given, top, columns"),
        (("--size", "12"), "WIDTHxHEIGHT"),
        (("--pages", "x"), "as in 1,3-5"),
        (("--pages", "3-1"), "as in 1,3-5"),
        (("--pages", "0"), "numbers from 1"),
        (("--pages", "1-9999999999"), "numbers from 1 to 100,000"),
        (("--always", "--ocr", "none"), "give one of the two"),
        (("--draw", "."), "is a folder"),
    ],
)
def test_options_that_make_no_sense(options, message, invoice: Path):
    assert message in " ".join(run(invoice, *options).replace("│", " ").split())


def test_mistakes(invoice: Path, tmp_path: Path):
    with pytest.raises(VertebraError, match="no page 7"):
        run(invoice, "--pages", "7")
    (tmp_path / "x.json").write_text('[{"box": [1, 2, 3, 4], "text": "a"}]')
    with pytest.raises(VertebraError, match="size="):
        run(tmp_path / "x.json")
    assert '"size"' in run(tmp_path / "x.json", "--size", "10x10", "--json")
    (tmp_path / "y.json").write_text('[{"box": [1, 2, 30, 4], "text": "a"}]')
    with pytest.raises(VertebraError, match="leaves the page"):
        run(tmp_path / "y.json", "--size", "10x10", "--strict")
    assert "mended" in run(tmp_path / "y.json", "--size", "10x10")


@pytest.mark.parametrize("option", ["--out", "--draw"])
def test_what_cannot_be_written_comes_before_the_reading(option: str, invoice: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vertebra.page.reading.read_document", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(VertebraError, match="cannot be written to"):
        run(invoice, option, "/proc/nowhere/a.png")


def test_a_pdf_is_one_whatever_it_is_called(invoice: Path, tmp_path: Path):
    """It is drawn upon its own picture, and not on white."""
    bare = invoice.rename(tmp_path / "invoice")
    run(bare, "--pages", "1", "--draw", tmp_path / "new" / "out.png")
    with Image.open(tmp_path / "new" / "out.png") as made:
        assert made.size == (1700, 2200)
