"""What the READMEs promise: their code runs, their links lead somewhere, their commands are all there and no others."""

from __future__ import annotations

import operator
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import vertebra
from vertebra.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", ROOT / "README.zh.md"]
PAGES = [*READMES, *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]


ANSWER = "I take the red block and put it on the shelf."


def blocks(page: Path, kind: str = "python") -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def typed(tmp_path_factory) -> tuple[Path, str]:
    """The folder in which the README's commands were typed, and what the last one said."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    text = ""
    for line in blocks(READMES[0], "sh")[0].splitlines():
        command, *arguments = shlex.split(line)
        assert command == "vertebra"
        again = [sys.executable, "-c", "from vertebra.cli.main import run; run()", *arguments]
        text = subprocess.run(again, cwd=folder, capture_output=True, text=True, check=True).stdout
    return folder, text


def test_the_commands_fine_tune_and_generate(typed):
    folder, reply = typed
    assert reply.strip() == ANSWER
    assert (folder / "runs" / "merged" / "model.safetensors").is_file()
    assert ANSWER in (folder / "runs" / "chat" / "report.html").read_text(encoding="utf-8")


def test_code_runs_as_it_stands(capsys, typed, monkeypatch):
    monkeypatch.chdir(typed[0])
    names: dict = {}
    for block in blocks(READMES[0]):  # later blocks go on where earlier ones ended
        exec(compile(block, "README.md", "exec"), names)
    assert capsys.readouterr().out.strip().endswith(ANSWER)


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_table_lists_every_command_and_no_other(page):
    listed = re.findall(r"^\| `vertebra ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?", page.read_text(encoding="utf-8"))
    assert [target for target, _ in links if not (page.parent / target).exists()] == []
    at = [(page.parent / target if target else page, heading) for target, heading in links if heading]
    assert [(target.name, heading) for target, heading in at if heading not in anchors(target)] == []


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_leads_to_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(([\w.-]+\.md)", index)) == {path.name for path in (ROOT / "docs").glob("[!R]*.md")}
    mentioned = re.findall(r"`(?:vt|vertebra)\.([\w.]+)`", index)
    for name in mentioned:
        assert operator.attrgetter(name)(vertebra), name


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_tree_names_folders_that_exist(page):
    named = re.findall(r"^  ([a-z]+)/ ", page.read_text(encoding="utf-8"), re.MULTILINE)
    there = {path.name for path in (ROOT / "src" / "vertebra").iterdir() if (path / "__init__.py").is_file()}
    assert set(named) == there


def test_backbone_page_runs(monkeypatch, tmp_path, capsys):
    from vertebra.backbone.families.models import MODELS

    monkeypatch.chdir(tmp_path)
    before = dict(MODELS)
    for block in blocks(ROOT / "docs" / "backbone.md"):
        exec(compile(block, "backbone.md", "exec"), {})
    MODELS.clear()
    MODELS.update(before)
    assert "growth replayed" in capsys.readouterr().out


def test_the_page_of_commands_names_them_all():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^vertebra ([a-z-]+)", page, re.MULTILINE))
    assert named >= set(COMMANDS)
