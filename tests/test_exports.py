"""Every public name resolves, is documented, and has one spelling; pages and examples import by those spellings alone."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import runpy
from pathlib import Path

import pytest

import vertebra

ROOT = Path(__file__).parent.parent
ROOMS = (
    "action",
    "backbone",
    "bulk",
    "checks",
    "client",
    "data",
    "decode",
    "documents",
    "episodes",
    "evaluate",
    "layout",
    "model",
    "page",
    "policies",
    "prompt",
    "sequence",
    "serve",
    "simulate",
    "tasks",
    "training",
    "tune",
)
PACKAGES = ["vertebra", *(f"vertebra.{one.name}" for one in pkgutil.iter_modules(vertebra.__path__) if one.ispkg)]
OFFERED = [(package, name) for package in PACKAGES for name in getattr(importlib.import_module(package), "__all__", ())]
PAGES = [*ROOT.glob("README*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.py"), *ROOT.glob("examples/*.*")]


@pytest.mark.parametrize(("package", "name"), OFFERED, ids=lambda part: part)
def test_public_name(package: str, name: str):
    module = importlib.import_module(package)
    value = getattr(module, name)
    assert (value.__doc__ or "").strip(), f"{package}.{name} has no docstring"
    assert name in dir(module)


def test_the_api_page_has_them_all():
    """Made as `make docs` makes it; warnings are errors here as well. A constant's docstring stands beneath it."""
    page = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["page"]()
    listed = re.findall(r'<h3 id="([\w.]+)">', page)
    assert sorted(listed) == sorted(f"{package}.{name}" for package, name in OFFERED if name not in ROOMS)
    assert page.count("<h2>") == len(PACKAGES) - 1, "the command line offers no names"
    assert " at 0x" not in page


def test_every_name_has_one_spelling():
    names = [name for _, name in OFFERED]
    assert sorted(names) == sorted(set(names))
    for package, name in OFFERED:
        if name not in ROOMS:  # a module of that name would stand in its place as soon as it is imported
            assert name not in [room.name for room in pkgutil.iter_modules(importlib.import_module(package).__path__)]


def test_the_face_is_about_forty_names():
    assert set(ROOMS) < set(dir(vertebra))
    assert 35 <= len(set(dir(vertebra)) - set(ROOMS)) <= 45
    verbs = "load render generate stream trace score fill check train merge plan"
    assert set(verbs.split()) < set(dir(vertebra))


def test_rooms_are_reached_by_their_name():
    assert vertebra.decode.DecodeConfig().temperature is None
    assert vertebra.errors.VertebraError is vertebra.VertebraError


def test_unknown_name_offers_the_nearest():
    with pytest.raises(AttributeError, match="TokenSequence"):
        _ = vertebra.TokenSequenze


@pytest.mark.parametrize(
    ("package", "name", "spelling"),
    [
        ("vertebra", "Collator", "vertebra.data.Collator"),
        ("vertebra", "tiny_checkpoint", "vertebra.backbone.tiny_checkpoint"),
        ("vertebra", "choose", "vertebra.tune.choose"),
        ("vertebra", "check_backbone", "vertebra.checks.check_backbone"),
        ("vertebra.decode", "generate", "vertebra.generate"),
    ],
)
def test_a_name_in_the_wrong_place_is_shown_its_own(package: str, name: str, spelling: str):
    with pytest.raises(AttributeError, match=f"It is `{spelling}`"):
        getattr(importlib.import_module(package), name)


def imported(source: str) -> list[str]:
    """`module.name` of everything of ours that a piece of code imports."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vertebra":
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("vertebra")]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_and_examples_import_by_those_spellings_alone(page: Path):
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL) if page.suffix == ".md" else [text]
    allowed = {f"{package}.{name}" for package, name in OFFERED} | {"vertebra"}
    allowed |= {f"vertebra.errors.{name}" for name in vars(vertebra.errors)}
    assert [name for block in blocks for name in imported(block) if name not in allowed] == []
