"""The code blocks of docs/prompt.md run, and say what their comments say."""

from __future__ import annotations

import re
from pathlib import Path

from vertebra.prompt.registry import prompt_builder_names

PAGE = (Path(__file__).parents[2] / "docs" / "prompt.md").read_text(encoding="utf-8")


def test_code_blocks(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        scope: dict[str, object] = {}
        exec(compile(block, "docs/prompt.md", "exec"), scope)
        if "sequence" in scope:
            assert scope["sequence"].slot_count("image") == 4  # type: ignore[attr-defined]
    assert "‹image›" in capsys.readouterr().out


def test_comments_say_what_is_returned():
    scope: dict[str, object] = {}
    reported = 0
    for line in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0].splitlines():
        call, _, reply = line.partition("  # ")
        if reply.strip().startswith("'"):
            assert eval(call, scope) == eval(reply.strip()), line
            reported += 1
        else:
            exec(line, scope)
    assert reported == 4


def test_every_builder_is_in_the_page():
    assert [name for name in prompt_builder_names() if f"`{name}`" not in PAGE] == []
