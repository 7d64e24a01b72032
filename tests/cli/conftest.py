"""Commands called in this process, as the console script calls them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest

from vertebra.cli import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def vertebra(capsys, monkeypatch) -> Any:
    """`vertebra("models", "--json")`: the console script with these arguments; exit code and what it printed."""
    monkeypatch.setattr(main.log, "show", lambda: None)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")

    def call(*arguments: str) -> Ran:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["vertebra", *arguments])
        with pytest.raises(SystemExit) as left:
            main.run()
        out, err = capsys.readouterr()
        code = left.value.code
        return Ran(code if isinstance(code, int) else 0, out, err)

    return call
