"""What decoding gives back: a `Step` at a time while it runs, a `Generation` when it is done. Data, and no more.

B rows (with several answers to a prompt, they stand next to each other), T new tokens, V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from vertebra.decode.choose.text import cut_at
from vertebra.decode.state.decoding import DecodeState, Pass

REASONS = {
    "eos": "an end id was generated",
    "stop string": "a stop string was generated",
    "length": "as many tokens as were requested",
    "context": "the model has no further positions",
    "time": "max_time was over",
    "constraint": "the constraint is complete",
    "stopped": "`stop` ended it",
    "not a number": "the logits hold NaN or infinity",
    "nothing possible": "every token was ruled out",
}
"""Why a row ended."""


@dataclass(kw_only=True, eq=False)
class Step:
    """One token a row, as it was chosen."""

    index: int
    tokens: list[int]
    """One a row; the pad id where the row had ended before."""
    text: list[str]
    """What became certain of each row's text; empty strings unless text was asked for."""
    live: list[bool]
    """Which rows generated this token."""
    ended: dict[int, str]
    """Rows that end with this token (or instead of it), and why."""
    rows: list[int]
    """The rows that were computed, in the order of `logits` and `scores`: rows that ended leave."""
    logits: torch.Tensor
    """[rows, V] raw, in fp32; or the columns of `ids` alone."""
    scores: torch.Tensor
    """[rows, V] after every rule: what the token was chosen from."""
    ids: torch.Tensor | None
    """The ids behind the columns of logits and scores; None: all, in order."""
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    seconds: float = 0.0
    """Since the step before it (the first: since the call), the pass that made its logits included."""


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds, as a clock on the wall counts them."""

    prefill: float
    """The prompt's passes."""
    first_token: float
    """From the call to the first token."""
    steps: tuple[float, ...]
    """Each token after the first."""
    total: float

    @property
    def tokens_per_second(self) -> float:
        """Steps a second after the first token; 0 where there was none."""
        return len(self.steps) / sum(self.steps) if self.steps else 0.0


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Generation:
    """The answers to the rows of a prompt. Printed, it is their text."""

    tokens: list[list[int]]
    """New tokens of each row."""
    stop_reason: list[str]
    """A key of `REASONS` for each row."""
    passes: tuple[Pass, ...]
    """Every call of the language model: its kind, rows, columns, what was cached."""
    timings: Timings
    seeds: tuple[int, ...] | None
    """What each row drew with; None where nothing was drawn."""
    engine: str = "vertebra"
    logits: tuple[torch.Tensor, ...] | None = None
    """T × [B, V], raw, in fp32."""
    scores: tuple[torch.Tensor, ...] | None = None
    """T × [B, V], after every rule: −inf where a token was ruled out."""
    hidden_states: tuple[tuple[torch.Tensor, ...] | None, ...] | None = None
    """Steps × (layers + 1) × [B, length, width]: the whole prompt at step 0, one position at each later one."""
    attentions: tuple[tuple[torch.Tensor, ...] | None, ...] | None = None
    """Steps × layers × [B, heads, queries, keys]."""
    pad_id: int = 0
    device: torch.device | None = None
    tokenizer: Any = None
    stop_strings: tuple[str, ...] = ()
    sequences_scores: torch.Tensor | None = None
    """[B] of beams: the score by which they were ranked."""
    state: DecodeState | None = None
    """Where it ended, to be extended and decoded on; kept where `keep_state` asks for it."""
    prompt_length: int
    """Columns of the prompt."""
    failed: list[int] = field(default_factory=list)
    """Rows whose logits were no numbers, or for which nothing was possible; what they generated before is kept."""

    def __len__(self) -> int:
        return len(self.tokens)

    def __str__(self) -> str:
        return self.text[0] if len(self) == 1 else "\n".join(f"[{row}] {text}" for row, text in enumerate(self.text))

    def __repr__(self) -> str:
        return f"Generation(text={self.text!r}, stop_reason={self.stop_reason!r})"

    @cached_property
    def sequences(self) -> torch.Tensor:
        """[B, T] the same as a tensor; the pad id after a row's end."""
        longest = max(self.lengths)
        rows = [ids + [self.pad_id] * (longest - len(ids)) for ids in self.tokens]
        return torch.tensor(rows, dtype=torch.long, device=self.device)

    @cached_property
    def text(self) -> list[str]:
        """The answer of each row, special tokens and stop strings left out."""
        decode = self.tokenizer.decode
        texts = [decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) for ids in self.tokens]
        return [
            cut_at(text, self.stop_strings) if reason == "stop string" else text
            for text, reason in zip(texts, self.stop_reason, strict=True)
        ]

    @property
    def lengths(self) -> list[int]:
        """New tokens of each row."""
        return [len(tokens) for tokens in self.tokens]

    @property
    def shape_of_passes(self) -> list[int]:
        """Columns of each pass: `[P, 1, 1, …]` where everything is right."""
        return [one.columns for one in self.passes]
