"""Every snippet of the notes and of the data page runs; `tests/test_languages.py` holds the Chinese notes against them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"
_SECTION = re.compile(r"^## (.+?)$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def sections(name: str) -> list[tuple[str, list[str]]]:
    """(heading, its snippets) of a page."""
    text = (DOCS / name).read_text(encoding="utf-8")
    return [(heading, _CODE.findall(body)) for heading, body in _SECTION.findall(text)]


NOTES = sections("notes.md")
PAGE = _CODE.findall((DOCS / "data.md").read_text(encoding="utf-8"))


def run(code: str) -> None:
    exec(compile(code, "<snippet>", "exec"), {"__name__": "snippet"})


@pytest.mark.parametrize(("heading", "snippets"), NOTES, ids=[heading[:50] for heading, _ in NOTES])
def test_every_answer_has_a_snippet_that_runs(heading, snippets, tmp_path, monkeypatch):
    assert snippets, f"`{heading}` has no snippet"
    monkeypatch.chdir(tmp_path)
    for code in snippets:
        assert "assert " in code, f"the snippet of `{heading}` shows nothing"
        run(code)


@pytest.mark.parametrize("code", PAGE, ids=range(len(PAGE)))
def test_the_data_page_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(code)


@pytest.mark.parametrize("name", ["notes.md", "notes.zh.md"])
def test_every_link_of_the_list_leads_to_an_answer(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    headings = {_anchor(heading) for heading, _ in sections(name)}
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert len(links) == len(headings)
    assert set(links) == headings


def _anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
