"""Conversations and a tokenizer that several of these tests use."""

from __future__ import annotations

from functools import cache
from typing import Any

from transformers import AutoTokenizer

from vertebra.backbone.tiny import tiny_checkpoint

IMAGE = {"type": "image"}


@cache
def llama() -> Any:
    return AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-llama2"))


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def ask(content: Any, answer: Any = None) -> list[dict[str, Any]]:
    turns = [{"role": "user", "content": content}]
    return turns if answer is None else [*turns, {"role": "assistant", "content": answer}]
