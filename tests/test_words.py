"""Plain words where a user reads: pages, the command line's help, docstrings of public names; and in the names of the source.
The field has its own: reported, listed, given, requested, recorded, generated."""

from __future__ import annotations

import ast
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


NO_NAMES = {
    "heard",
    "said",
    "say",
    "says",
    "speaks",
    "spoken",
    "taught",
    "tell",
    "telling",
    "tells",
    "told",
    "want",
    "wanted",
    "wants",
}
"""Words that are no names: what it is has one."""
KEPT = {("decode/tracing/pictures.py", "told")}
"""A key of `vertebra trace --json`."""


def names_of(node: ast.AST) -> Iterator[str]:
    """What this node gives a name to."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.alias) and node.asname:
        yield node.asname


def test_names():
    source = ROOT / "src" / "vertebra"
    found = {
        f"{path.relative_to(source)}:{node.lineno} {name}"
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in names_of(node)
        if NO_NAMES & {word.lower() for word in re.findall("[A-Z]?[a-z]+", name)}
        and (str(path.relative_to(source)), name) not in KEPT
    }
    assert found == set()


def test_names_in_tests():
    """The commonest of them; the name of a test is a sentence, and may say what something says."""
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno} {name}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in names_of(node)
        if {"told", "said", "wanted"} & set(name.split("_"))
    }
    assert found == set()
