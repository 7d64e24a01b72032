"""`vertebra doc ask`, `extract` and `eval`: printed, as JSON, as a page, as a picture; mistakes found before a model loads."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.evaluate.test_documents import page
from tests.page.pdf.made import Text, pdf
from vertebra.cli.doc import app
from vertebra.cli.doc_asking import DocumentAndModel, ask, extract
from vertebra.documents.calibration import calibration_of
from vertebra.errors import ConfigError, DataError, UnknownNameError, VertebraError
from vertebra.page import Document, write_pages

NAME = "tiny-smollm2"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout if "--json" in arguments else result.output  # what is logged goes elsewhere


@pytest.fixture
def invoice(tmp_path: Path) -> Path:
    return pdf(tmp_path / "a.pdf", [[Text("Total 9.50", 50, 600)], [Text("second 25/12/2018", 50, 600)]])


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "s.json"
    path.write_text('{"total": "number", "date": "date", "items": ["text"]}')
    return path


def last_json(text: str):
    return json.loads(text)


def test_extract(invoice: Path, schema: Path, tmp_path: Path):
    shown = run("extract", NAME, invoice, "--schema", schema, "--ocr", "none", "--max-list-tokens", 9)
    assert "confidence" in shown
    assert "total" in shown
    found = last_json(run(
        "extract", NAME, invoice, "--schema", schema, "--json", "--html", tmp_path / "x.html", "--draw", tmp_path / "x.png",
        "--across", "items", "--max-list-tokens", 9, "--pages", "1",
    ))  # fmt: skip
    assert set(found["fields"]) == {"total", "date", "items"}
    assert set(found["fields"]["total"]) >= {"value", "text", "page", "boxes", "lines", "confidence"}
    assert "<svg" in (tmp_path / "x.html").read_text()
    with Image.open(tmp_path / "x.png") as made:
        assert made.width > 1000
    run("extract", NAME, invoice, "--schema", schema, "--draw", tmp_path / "y.png", "--max-list-tokens", 9)
    assert sorted(path.name for path in tmp_path.glob("y*")) == ["y-1.png", "y-2.png"]


def test_ask(invoice: Path):
    found = last_json(run("ask", NAME, invoice, "What is the total?", "<|im_end|>?", "--json", "--max-new-tokens", 9))
    assert list(found["fields"]) == ["What is the total?", "<|im_end|>?"]
    free = last_json(run("ask", NAME, invoice, "What is it?", "--free", "--json", "--seconds", 99))
    assert free["fields"]["What is it?"]["boxes"] == []


def test_eval(tmp_path: Path):
    data = tmp_path / "data.json"
    write_pages(Document((page(1), page(2))), data)
    shown = run("eval", NAME, data, "--arms", "no-boxes", "--field", "total", "--field", "date", "--out", tmp_path / "o.json",
                "--calibrate", tmp_path / "c.json", "--html", tmp_path / "e.html", "--drawn", 1)  # fmt: skip
    assert (tmp_path / "e.html").read_text().count("class='card sheet'") == 1
    assert "e.html" in shown.replace("\n", "")
    assert "model − arm" in shown
    assert "(amount)" in shown
    assert calibration_of(tmp_path / "c.json", {}).answers == 4
    assert len(json.loads((tmp_path / "o.json").read_text())["records"]) == 8
    found = last_json(run("eval", NAME, data, "--pages", "1", "--first", "1", "--field", "total", "--json"))
    assert [one["page"] for one in found["records"]] == [0]
    Image.new("RGB", (100, 60)).save(tmp_path / "p1.png")
    with pytest.raises(DataError, match="no picture of the page `p2`"):
        run("eval", NAME, data, "--images", tmp_path)
    with pytest.raises(DataError, match="no page of the data is left"):
        run("eval", NAME, data, "--first", "2")
    with pytest.raises(UnknownNameError, match="no-boxes"):
        run("eval", NAME, data, "--arms", "no-boxs")
    assert "expected temperature" in run("eval", NAME, data, "--calibration", "platt").replace("│", "")


def test_a_folder_of_files_is_a_data_set(tmp_path: Path):
    """As data that one trains on is: a folder, a pattern, or a file."""
    (tmp_path / "data").mkdir()
    for number in (1, 2, 3):
        write_pages(Document((page(number),)), tmp_path / "data" / f"{number}.json")
    options = ("--field", "total", "--json", "--max-new-tokens", 4)
    whole = last_json(run("eval", NAME, tmp_path / "data", *options))
    assert [one["page"] for one in whole["records"]] == [0, 1, 2]
    some = last_json(run("eval", NAME, tmp_path / "data" / "[13].json", *options))
    assert [one["page"] for one in some["records"]] == [0, 1]
    with pytest.raises(DataError, match="no file or folder"):
        run("eval", NAME, tmp_path / "nowhere")


def test_mistakes_before_a_model_loads(invoice: Path, schema: Path, tmp_path: Path, monkeypatch):
    import vertebra.cli.asking

    monkeypatch.setattr(vertebra.cli.asking, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    (tmp_path / "bad.json").write_text('{"type": "object", "properties": {"a": {"$ref": "#"}}}')
    with pytest.raises(ConfigError, match="recursive"):
        run("extract", NAME, invoice, "--schema", tmp_path / "bad.json")
    with pytest.raises(DataError, match="no page 7"):
        run("ask", NAME, invoice, "What?", "--pages", "7")
    for option in ("--out", "--html", "--calibrate"):
        with pytest.raises(VertebraError, match="cannot be written to"):
            run("eval", NAME, invoice, option, "/proc/nowhere/a.html")
    for option in ("--html", "--draw"):
        with pytest.raises(VertebraError, match="cannot be written to"):
            run("ask", NAME, invoice, "What?", option, "/proc/nowhere/a.html")
    with pytest.raises(UnknownNameError, match="tiny-smollm2"):
        run("extract", "tiny-smollm", invoice, "--schema", schema)


def test_both_commands_take_the_options_that_are_defined_once():
    asked, extracted = (inspect.signature(command).parameters for command in (ask, extract))
    for name, one in inspect.signature(DocumentAndModel, eval_str=True).parameters.items():
        reply = [found[name].annotation.__metadata__[0].help for found in (asked, extracted)]
        assert reply == [one.annotation.__metadata__[0].help] * 2
        assert asked[name].default == extracted[name].default == one.default
