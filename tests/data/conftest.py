"""Small files of every kind, and tokenizers made on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from .tokenizers import tokenizer_of


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as JSON lines: `jsonl(rows)` or `jsonl(rows, "name.jsonl")`."""

    def write(rows: Iterable[Any], name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def llama() -> Any:
    """Adds BOS, has no pre-tokenizer."""
    return tokenizer_of("tiny-llama2")


@pytest.fixture
def gpt2() -> Any:
    """Adds nothing, byte-level with a pre-tokenizer."""
    return tokenizer_of("tiny-gpt2")


@pytest.fixture
def bert() -> Any:
    """Adds [CLS] and [SEP], has a mask token and token types."""
    return tokenizer_of("tiny-bert")
