"""`vertebra data`: show, check and stats answer on one file of every format, and say what is wrong."""

from __future__ import annotations

import json

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from vertebra.cli.data import app
from vertebra.errors import VertebraError

from ..data.files import CHAT, ENCODER, FILES, TURNS, lines


@pytest.fixture
def data():
    """`data("show", path, "--model", …)`: exit code and what it printed; our errors come out as they are."""

    def call(*arguments: object):
        done = CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(argument) for argument in arguments])
        if isinstance(done.exception, VertebraError):
            raise done.exception
        return done

    return call


@pytest.mark.parametrize("name", FILES)
def test_all_three_commands_on_every_format(name, data, tmp_path):
    write, model, format, kind = FILES[name]
    path = write(tmp_path)
    shown = data("show", path, "--model", model, "-n", 2)
    assert shown.exit_code == 0, shown.output
    assert f"{format}, {kind}" in shown.output
    assert "row 0:" in shown.output
    checked = data("check", path, "--model", model, "--json", *([] if name == "messages" else ["--no-packing"]))
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["format"] == format
    drawn = data("stats", path, "--model", model, "--out", tmp_path / "lengths.png")
    assert drawn.exit_code == 0, drawn.output
    assert "packed" in drawn.output
    with Image.open(tmp_path / "lengths.png") as picture:
        assert picture.format == "PNG"


def test_show_tells_every_vector(data, tmp_path):
    path = FILES["llava"][0](tmp_path)
    page = tmp_path / "page.html"
    shown = data("show", path, "--model", CHAT, "--image-slots", 3, "--html", page)
    for word in ("position", "token", "role", "target", "weight", "slot", "assistant", "image 2"):
        assert word in shown.output
    html = page.read_text()
    assert html.count("<body>") == html.count("</body>") == 1
    masked = data("show", FILES["masked"][0](tmp_path), "--model", ENCODER, "--size", 24, "-n", 2, "--html", page)
    assert "[MASK]" in masked.output
    assert "block" in masked.output
    html = page.read_text()
    assert html.count("<h1>") == 1
    assert "text, masked, 2 rows of 24 positions" in html
    assert [f"<h2>row {row}: 24 positions, 0 padding</h2>" in html for row in range(2)] == [True, True]
    paired = data("show", FILES["pairs"][0](tmp_path), "--model", ENCODER, "--html", page)
    assert "label 1" in paired.output
    assert "padding, label 1</h2>" in page.read_text()
    with pytest.raises(VertebraError, match="cannot be written"):
        data("show", path, "--model", CHAT, "--html", tmp_path / "none" / "page.html")


def test_show_packs_as_training_does(data, tmp_path):
    path = FILES["messages"][0](tmp_path)
    shown = data("show", path, "--model", CHAT)
    assert "1 rows of" in shown.output
    assert "document" in shown.output
    assert "document" not in data("show", path, "--model", CHAT, "--set", "data.batching=shuffled").output


def test_check_says_what_must_be_mended(data, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(lines([{"messages": TURNS}, {"messages": TURNS[:1]}]) + "{broken\n")
    done = data("check", path, "--model", CHAT, "--no-packing")
    assert done.exit_code == 1
    assert f"{path}:2: no assistant turn" in done.output
    assert f"{path}:3: malformed JSON" in done.output
    assert "must be mended: rows" in done.output
    with pytest.raises(VertebraError, match="2 of 3 rows"):
        data("show", path, "--model", CHAT)
    assert data("show", path, "--model", CHAT, "--skip-bad").exit_code == 0


def test_packing_and_the_corpus(data, monkeypatch):
    monkeypatch.setattr("vertebra.data.reading.CORPUS_SIZE", 0.1)
    done = data("check", "stdlib:docstrings", "--model", "tiny-mistral", "--size", 64)
    assert done.exit_code == 0, done.output
    assert "packed = unpacked  pass" in done.output
    assert "nothing would stop or spoil a run" in done.output


def test_what_a_recipe_sets_can_be_set_here(data, tmp_path):
    """Whose text may hold added tokens, the system prompt and its place, the classes of pairs."""
    path = tmp_path / "act.jsonl"
    turns = [TURNS[0], {"role": "assistant", "content": "left<ACT>"}]
    path.write_text(lines([{"messages": turns}, {"messages": TURNS}]))
    asked = ["check", path, "--model", CHAT, "--add-token", "<ACT>"]
    lost = data(*asked, "--no-packing")
    assert lost.exit_code == 1
    assert "must be mended: added tokens" in lost.output
    assert "--trusted assistant" in lost.output
    found = data(*asked, "--trusted", "assistant")
    assert found.exit_code == 0, found.output
    assert "`<ACT>` 1" in found.output
    shown = data(
        "show",
        path,
        "--model",
        CHAT,
        "--add-token",
        "<ACT>",
        "--trusted",
        "all",
        "--system",
        "Be brief.",
        "--fold-system",
    )
    assert shown.exit_code == 0, shown.output
    assert "<ACT>" in shown.output
    assert "brief" in shown.output
    with pytest.raises(VertebraError, match=r"trusted\.0: str 'user'; expected one of assistant"):
        data("show", path, "--model", CHAT, "--trusted", "user")
    pairs = data("check", FILES["pairs"][0](tmp_path), "--model", ENCODER, "--label", "different", "--label", "same")
    assert "different 3, same 3" in pairs.output


def test_columns_by_other_names(data, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines([{"body": "some words"}]))
    assert data("show", path, "--model", "tiny-gpt2", "--column", "text=body").exit_code == 0
    with pytest.raises(VertebraError, match="no known format"):
        data("show", path, "--model", "tiny-gpt2")
    assert data("show", path, "--model", "tiny-gpt2", "--column", "text").exit_code == 2


def test_it_is_a_group_of_commands():
    group = typer.main.get_command(app)
    assert set(group.commands) == {"show", "check", "stats", "convert"}
