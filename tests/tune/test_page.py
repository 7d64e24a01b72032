"""The page on tuning: its code runs from top to bottom, and its table of stages is the one that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vertebra.tune.stages import STAGES

PAGE = (Path(__file__).parents[2] / "docs" / "tune.md").read_text(encoding="utf-8")


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "tune.md", "exec"), names)
    output = capsys.readouterr().out
    assert re.search(r"parts\.image\.encoder\.cut \(from scratch\) +2 +2", output)
    assert "step 1: all 6 trainable tensors have a finite gradient" in output
    assert "matrices merged" in output
    assert names["merged"].record["statistics"] == {"q01": [-1.0], "q99": [1.0]}


def test_the_table_of_stages():
    rows = [line.split("|")[1:-1] for line in PAGE.splitlines() if line.startswith("| `")]
    reported = {}
    for names, *cells in rows:
        for name in re.findall(r"`([a-z-]+)`", names):
            reported[name] = [cell.strip() != "·" for cell in cells]
    assert set(reported) == set(STAGES)
    for name, pieces in STAGES.items():
        language = any(piece in ("lm", "last layer", "last blocks", "biases") for piece in pieces) or name == "lora"
        assert reported[name] == ["vision" in pieces, "projector" in pieces, language, "heads" in pieces], name
