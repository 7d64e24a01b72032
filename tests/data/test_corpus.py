"""The corpus that every Python has: deterministic, split by file, of the size asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from vertebra.data.encode.encoders import TextEncoder
from vertebra.data.encode.prepare import prepare
from vertebra.data.read.corpus import corpus_split, python_corpus
from vertebra.data.read.rows import Row
from vertebra.errors import UnknownNameError


def test_sources_are_files():
    corpus = python_corpus(megabytes=0.3)
    rows = [row for row in corpus.rows() if isinstance(row, Row)]
    size = sum(len(row.fields["text"]) for row in rows)
    assert 200_000 < size < 500_000
    assert any("def " in row.fields["text"] for row in rows)
    assert len({row.file for row in rows}) == len(rows)
    assert not any("site-packages" in row.file or "/test/" in row.file for row in rows)
    assert [row.where for row in rows] == [row.where for row in python_corpus(megabytes=0.3).rows()]


def test_docstrings_are_texts_with_their_lines():
    rows = [row for row in python_corpus("docstring", megabytes=0.3).rows() if isinstance(row, Row)]
    assert len(rows) > 50
    row = max(rows, key=lambda row: row.line)
    source = Path(row.file).read_text(encoding="utf-8").splitlines()
    assert source[row.line - 1].lstrip().startswith(("def ", "class ", "async def ", "@"))


def test_the_split_is_by_file(gpt2):
    parts = corpus_split("docstring", valid=0.2, megabytes=0.3)
    files = {name: {row.file for row in part.rows()} for name, part in parts.items()}
    assert files["train"].isdisjoint(files["valid"])
    assert 0 < len(files["valid"]) < len(files["train"])
    table = prepare(parts["valid"], TextEncoder(gpt2), cache=False)
    assert table.tokens > 1000
    with pytest.raises(UnknownNameError, match="Did you mean `docstring`"):
        python_corpus("docstrings")
