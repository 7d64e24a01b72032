"""The page on training: its Python runs, its commands parse, its recipes, settings and files are those that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from vertebra.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "train.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    found = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert found
    names: dict = {}
    for block in found:  # later blocks go on where earlier ones ended
        exec(compile(block, PAGE.name, "exec"), names)
    assert (tmp_path / "mine" / "report.html").is_file()


def test_its_recipes_are_those_in_the_folder():
    rows = re.findall(r"^\| ((?:`[a-z0-9-]+`(?:, )?)+) \|", TEXT, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row)}
    assert named == {path.stem for path in (ROOT / "recipes").glob("*.yaml")}


def test_its_commands_are_ours():
    joined = re.sub(r" *\\\n +", " ", TEXT)
    lines = re.findall(r"^    vertebra (.+?)(?:   .*)?$", joined, re.MULTILINE)
    assert len(lines) > 5
    for line in lines:
        name, *arguments = shlex.split(line)
        assert name in COMMANDS, line
        options = command_options(name)
        assert {word for word in arguments if word.startswith("--")} <= options, line


def command_options(name: str) -> set[str]:
    import importlib

    import typer

    command = typer.main.get_command(importlib.import_module(COMMANDS[name].module).app)
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
