"""The page of episodes: its code runs, its schema is one, and its table lists what a check can find."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from vertebra import config
from vertebra.episodes import EpisodesSchema
from vertebra.episodes.check import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "episodes.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    for block in blocks("python"):
        exec(compile(block, "episodes.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "put the cup on the shelf (20, 3) (3, 96, 96, 3)",
        "passed: True",
    ]


def test_the_schema_is_one():
    (text,) = blocks("yaml")
    assert config.build(EpisodesSchema, yaml.safe_load(text)).fps == 10


def test_the_table_of_findings():
    rows = re.findall(r"^\| ([a-z ]+) \| (fail|note) \|", PAGE, re.MULTILINE)
    assert dict(rows) == {name: status for name, (status, _) in KINDS.items()}
