"""Tiny but real checkpoints of every family: true classes, trained tokenizers, real habits, loaded like a 7B.

`TINY` lists them without importing torch; `write_tiny` makes one in a folder, `tiny_checkpoint` keeps one in the
user's cache, and `write_hub_cache` lays them out under the real hub names for use without a network.
"""

from __future__ import annotations

from vertebra.backbone.tiny.checkpoints import TINY, TINY_ENCODERS
from vertebra.backbone.tiny.hub import write_hub_cache
from vertebra.backbone.tiny.spec import TinySpec, TinyTokenizer
from vertebra.backbone.tiny.tokenizer import tiny_text
from vertebra.backbone.tiny.write import tiny_checkpoint, tiny_spec, write_tiny

__all__ = [
    "TINY",
    "TINY_ENCODERS",
    "TinySpec",
    "TinyTokenizer",
    "tiny_checkpoint",
    "tiny_spec",
    "tiny_text",
    "write_hub_cache",
    "write_tiny",
]
