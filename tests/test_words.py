"""Plain words where a user reads: pages, the command line's help, docstrings of public names. The field has its own:
reported, listed, given, requested, recorded, generated."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import vertebra
from tests.test_exports import OFFERED
from vertebra.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.*")]

BANNED = (
    r"(is|are|was|were) (told|said|asked for)",
    r"told (as|by|in|until|that)|tells? (so|of|nothing)",
    r"says? so|who speaks|must speak|nobody (says|said|knows)|as (a|the) \w+ says",
    r"(what|which|one|is|are) wanted",
    r"out loud|loudly",
)
_FOUND = re.compile(rf"\b(?:{'|'.join(BANNED)})\b", re.IGNORECASE)


def helped(command: typer.core.TyperCommand | typer.core.TyperGroup) -> Iterator[str]:
    """Every text that `--help` of a command, and of those below it, prints."""
    yield command.help or ""
    yield from (getattr(parameter, "help", None) or "" for parameter in command.params)
    for below in getattr(command, "commands", {}).values():
        yield from helped(below)


def phrases(text: str) -> list[str]:
    """Banned phrases, over the ends of lines too, outside of blocks of code."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [found[0] for found in _FOUND.finditer(" ".join(prose.split()))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page: Path):
    assert phrases(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str):
    texts = [COMMANDS[name].does, *helped(typer.main.get_command(importlib.import_module(COMMANDS[name].module).app))]
    assert [phrase for text in texts for phrase in phrases(text)] == []


def test_docstrings_of_public_names():
    wrong = {}
    for package, name in OFFERED:
        value = getattr(importlib.import_module(package), name)
        if found := phrases(inspect.getdoc(value) or ""):
            wrong[f"{package}.{name}"] = found
    assert wrong == {}
    assert phrases(vertebra.__doc__ or "") == []
