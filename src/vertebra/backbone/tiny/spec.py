"""What describes a tiny checkpoint: its tokenizer and its model, as plain data.

Nothing here imports torch or transformers, so that listing the names costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["metaspace", "prepend", "gemma", "gpt2", "llama3", "qwen", "neox", "wordpiece"]
"""`metaspace` and `prepend` are SentencePiece-like: the space mark is put before the text's first word alone, or, as
in older files, before every stretch of text between marks, by a normalizer and without any pre-tokenizer."""


@dataclass(frozen=True, kw_only=True)
class TinyTokenizer:
    """How the tokenizer is trained, and what is added to what was learnt."""

    kind: Kind
    cls: str
    """The transformers class that a user's `AutoTokenizer` would name for the real repository."""
    size: int
    """`len(tokenizer)`, everything counted."""
    first: tuple[str, ...] = ()
    """Special tokens with the lowest ids."""
    last: tuple[str, ...] = ()
    """Special tokens with the highest ids."""
    plain: tuple[str, ...] = ()
    """Added tokens that are not special, after `last`."""
    swallow: bool = False
    """The special tokens in `last` swallow white space to their right, as Phi-3's do."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Named special tokens and other keywords of the tokenizer class."""


@dataclass(frozen=True, kw_only=True)
class TinySpec:
    """One tiny checkpoint."""

    name: str
    family: str
    hub_name: str
    """The real repository whose habits this one imitates, and under which a hub cache can hold it."""
    llm_cls: str
    config_cls: str
    config: Mapping[str, Any]
    ids: Mapping[str, str | tuple[str, ...]]
    """Ids in the model's config, by token: `{"eos_token_id": "</s>"}`."""
    tokenizer: TinyTokenizer
    rows: int
    """Rows of the embedding matrix, at least the tokenizer's size."""
    template: str | None = None
    """The chat template's file in `templates/`, without its suffix."""
    generation: Mapping[str, Any] | None = None
    """What the real repository ships in `generation_config.json` beside the ids, written as raw JSON."""
    generation_ids: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Ids in the generation config where they differ from the model's config."""
