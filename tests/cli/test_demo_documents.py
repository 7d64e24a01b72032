"""The demo's documents in small: both twins are trained, pages go through an engine, and one page shows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from vertebra.cli import demo_documents
from vertebra.cli.demo_documents import DemoScores, DocumentSizes, documents, scanned_samples, share_of
from vertebra.layout import PageRecord
from vertebra.model.model import Model
from vertebra.page.paper.made import drawn_page
from vertebra.page.paper.receipts import Style
from vertebra.training.recipes import read_recipe

SMALL = ("steps=2", "data.count=24", "data.options.asked=6", "optim.batch=4")


class Truth:
    """An engine that reads what was drawn, page after page."""

    name = "truth"

    def __init__(self) -> None:
        self.number = 0

    def read(self, image):
        page = drawn_page("mixed", self.number, 2, style=Style(head=False, digits=2, printed=True), picture=True)
        assert image.size == page.image.size
        self.number += 1
        return page


def test_both_twins_are_trained_and_scans_are_asked_about(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("vertebra.page.ocr.engines.engine", lambda name: Truth())
    found = documents(Console(width=160), tmp_path, DocumentSizes(settings=SMALL, scans=2, workers=1))
    records = [PageRecord.of(Model.load(tmp_path / "documents" / name / "model").record) for name in ("boxes", "words")]
    assert [record.manner for record in records] == ["added", "text"]
    assert 0 <= found.boxes <= 1
    assert 0 <= found.words <= 1
    assert found.scans is not None
    page = found.report.read_text()
    assert page.count("<img") == 2
    assert page.count("<tr") == 12
    assert "read by truth" in capsys.readouterr().out


def test_every_field_of_a_scan_is_asked_whatever_was_read(tmp_path: Path):
    from vertebra.training.building import build_model

    class Nothing:
        name = "nothing"

        def read(self, image):
            return drawn_page("form", 1, 9, style=Style(head=False))

    model = build_model(read_recipe(demo_documents.RECIPE, list(SMALL))).eval()
    samples, asked = scanned_samples(model, Nothing(), DocumentSizes(settings=SMALL, scans=2))
    assert len(samples) == 2
    assert len(asked) == 12
    assert all(len(question.answer) == 2 for _, question in asked)


def test_no_engine_is_no_failure(tmp_path: Path, monkeypatch, capsys):
    from vertebra.errors import MissingPartError

    def absent(name):
        raise MissingPartError("reading pictures (OCR)", "rapidocr", "ocr")

    monkeypatch.setattr("vertebra.page.ocr.engines.engine", absent)
    assert demo_documents._scanned(Console(width=160), tmp_path, DocumentSizes()) == (None, [])
    assert "vertebra[ocr]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("numbers", "good"),
    [
        ((0.96, 0.17, 0.86), True),
        ((0.94, 0.17, 0.86), False),
        ((0.96, 0.3, 0.86), False),
        ((0.96, 0.17, 0.84), False),
        ((0.96, 0.17, None), True),
    ],
)
def test_it_is_good_where_it_reads_by_places(numbers, good: bool):
    boxes, words, scans = numbers
    assert DemoScores(boxes=boxes, words=words, scans=scans, report=Path("x"), seconds=1).good == good


def test_dates_and_names_do_not_count():
    assert share_of({"accuracy": 0.9, "date": 1.0, "amount": 0.5, "number": 0.7}) == pytest.approx(0.6)
