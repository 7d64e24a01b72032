"""The page on robots: its Python runs, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

from vertebra.cli.main import COMMANDS

PAGE = (Path(__file__).parents[2] / "docs" / "robots.md").read_text(encoding="utf-8")


def test_its_python_runs(capsys):
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "robots.md", "exec"), names)
    assert "acted (1, 3)" in capsys.readouterr().out


def test_its_commands_exist():
    assert set(re.findall(r"^vertebra ([a-z-]+)", PAGE, re.MULTILINE)) <= set(COMMANDS)
