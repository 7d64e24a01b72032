"""The code of `docs/generation.md` runs as it stands, one block after the other."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "generation.md"


def test_code_runs_as_it_stands(capsys):
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    assert names["both"].lengths == [5, 5]
    assert "length" in capsys.readouterr().out
