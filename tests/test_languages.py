"""Pages that exist in English and in Chinese are kept in step: headings, code, commands, links. Words and comments differ."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAIRS = [("README.md", "README.zh.md"), ("docs/notes.md", "docs/notes.zh.md")]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def fences(text: str) -> list[tuple[str, object]]:
    """(language, what it means) of every code block: Python without comments, commands, the first column of a drawing."""
    found: list[tuple[str, object]] = []
    for language, body in _FENCE.findall(text):
        if language == "python":
            found.append((language, ast.dump(ast.parse(body))))
        elif language:
            found.append((language, [re.sub(r" +#.*", "", line) for line in body.splitlines()]))
        else:
            found.append((language, [re.split(r" {2,}", line.strip())[0] for line in body.splitlines()]))
    return found


def commands(text: str) -> list[str]:
    """The commands, calls and names between back quotes, in an order that no grammar changes."""
    return sorted(re.findall(r"`([^`\n]*)`", _FENCE.sub("", text)))


def links(text: str) -> list[str]:
    """Where links and pictures lead; a page of this pair leads to its other language, and to its own headings."""
    targets = re.findall(r"\]\(([^)#]+)", _FENCE.sub("", text))
    return sorted(target.replace(".zh.md", ".md") for target in targets)


@pytest.mark.parametrize("of", [fences, commands, links], ids=lambda of: of.__name__)
@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda name: name)
def test_two_languages_one_page(english: str, chinese: str, of):
    ours, theirs = ((ROOT / name).read_text(encoding="utf-8") for name in (english, chinese))
    levels = [re.findall(r"^#+(?= )", _FENCE.sub("", text), re.MULTILINE) for text in (ours, theirs)]
    assert levels[0] == levels[1]
    assert of(ours) == of(theirs)
