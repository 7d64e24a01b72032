"""The page of simulators: its code runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("draws")
def test_its_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "simulate.md", "exec"), names)
    assert capsys.readouterr().out == "0.0\n"
    assert (tmp_path / "evaluation" / "report.html").is_file()
