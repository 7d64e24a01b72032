"""The page on kinds of work: its code runs, its commands parse, and the kind of one's own that it shows works everywhere:
trained by a recipe, resumed bit for bit, measured, drawn, shown."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.training.test_page import command_options
from vertebra.cli.data import app
from vertebra.tasks.registry import TASKS, register_task, task_named
from vertebra.training.recipes import read_recipe
from vertebra.training.run import train
from vertebra.training.watching.metrics import METRICS, read, without_clock

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
TEXT = PAGE.read_text(encoding="utf-8")
WORDS = ["cat", "robot", "block", "left", "table", "red", "lamp", "gate", "hand", "blue", "cup", "clock"]


def block(name: str) -> str:
    """The file of this name that the page shows."""
    (found,) = re.findall(rf"```\w+\n(# {re.escape(name)}\n.*?)```", TEXT, re.DOTALL)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files, and a corpus; what the kind registers is forgotten afterwards."""
    for name in ("mirror.py", "mirror.yaml"):
        (tmp_path / name).write_text(block(name))
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mirror", raising=False)
    known = dict(TASKS)
    yield tmp_path
    sys.modules.pop("mirror", None)
    TASKS.clear()
    TASKS.update(known)


def test_it_is_short():
    assert len([line for line in block("mirror.py").splitlines() if line.strip()]) <= 40


def recipe(folder: Path, *settings: str):
    out = f"out={folder / 'run'}"
    return read_recipe(
        folder / "mirror.yaml", ["watch.bar=false", "watch.every=1", "save.asynchronous=false", out, *settings]
    )


def test_it_trains_evaluates_and_is_drawn(folder: Path):
    outcome = train(recipe(folder))
    assert 0 <= outcome.found["right"] <= 1
    page = (outcome.folder / "report.html").read_text()
    assert "evaluation: right" in page
    assert "<td>abc</td>" in page
    reply = json.loads((outcome.folder / "samples.json").read_text())
    assert [sample["prompt"] for sample in reply["before"] + reply["after"]] == ["abc", "abc"]
    assert (outcome.folder / "eval-right.png").is_file()
    assert "| right (step 8) |" in (outcome.model / "README.md").read_text()


def test_it_resumes_bit_for_bit(folder: Path):
    even = "optim.schedule=constant"
    whole = train(recipe(folder, even, f"out={folder / 'whole'}"))
    train(recipe(folder, even, "steps=4"))
    again = train(recipe(folder, even), resume=True)
    # a run of four steps evaluates at its end, and so does the whole one there
    rows = [[without_clock(row) for row in read(run.folder / METRICS)] for run in (whole, again)]
    assert rows[0] == rows[1]
    files = [(run.model / "model.safetensors").read_bytes() for run in (whole, again)]
    assert files[0] == files[1]


def test_it_is_shown_and_registered_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch):
    shown = CliRunner(env={"COLUMNS": "160"}).invoke(app, ["show", str(folder / "mirror.yaml"), "-n", "2"])
    assert shown.exit_code == 0, shown.output
    assert "text, mirror, 1 rows" in shown.output, "packed, as training packs them"
    checked = CliRunner().invoke(app, ["check", str(folder / "mirror.yaml"), "--json", "--no-packing"])
    assert json.loads(checked.stdout)["kind"] == "mirror:Mirror"
    assert type(task_named("mirror")).__module__ == "mirror"
    named = read_recipe(folder / "mirror.yaml", ["data.kind=mirror"])
    assert named.task.name == "mirror"
    with pytest.raises(ValueError, match="a kind `mirror` exists already"):
        register_task(type(task_named("mirror")))


def test_the_pages_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    found = [code for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if not code.startswith("# mirror")]
    assert found
    for code in found:
        exec(compile(code, PAGE.name, "exec"), {})
    assert "torch.Size([" in capsys.readouterr().out


def test_the_pages_table_is_that_of_the_kinds():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", TEXT, re.MULTILINE))
    assert set(rows) == set(TASKS)
    for name, reads in rows.items():
        assert tuple(re.findall(r"`(\w+)`", reads)) == task_named(name).reads


def test_the_pages_commands_are_ours():
    for line in re.findall(r"^    vertebra (data \w+|\w+) (.+?)(?:  .*)?$", TEXT, re.MULTILINE):
        options = {word for word in line[1].split() if word.startswith("--")}
        if line[0] == "train":
            assert options <= command_options("train")
