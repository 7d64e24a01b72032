"""What the READMEs promise: their code runs, their links lead somewhere, their commands are all there and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vertebra.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", ROOT / "README.zh.md"]
PAGES = [*READMES, *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_code_runs_as_it_stands(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks(page):  # later blocks go on where earlier ones ended
        exec(compile(block, page.name, "exec"), names)
    assert "on" in capsys.readouterr().out


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_table_lists_every_command_and_no_other(page):
    listed = re.findall(r"^\| `vertebra ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(set(listed)) == sorted(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_tree_names_folders_that_exist(page):
    named = re.findall(r"^  ([a-z]+)/ ", page.read_text(encoding="utf-8"), re.MULTILINE)
    there = {path.name for path in (ROOT / "src" / "vertebra").iterdir() if (path / "__init__.py").is_file()}
    assert set(named) == there


def test_backbone_page_runs(monkeypatch, tmp_path, capsys):
    from vertebra.backbone.families.table import MODELS

    monkeypatch.chdir(tmp_path)
    before = dict(MODELS)
    for block in blocks(ROOT / "docs" / "backbone.md"):
        exec(compile(block, "backbone.md", "exec"), {})
    MODELS.clear()
    MODELS.update(before)
    assert "growth replayed" in capsys.readouterr().out
