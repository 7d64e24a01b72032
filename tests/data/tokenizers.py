"""Tokenizers of the tiny checkpoints, loaded once for all tests of this folder."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from vertebra.backbone.tiny import tiny_checkpoint


@lru_cache
def tokenizer_of(name: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_checkpoint(name))
