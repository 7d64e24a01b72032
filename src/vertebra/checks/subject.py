"""What a check is made on: the backbone, the bound for its number type, sample sequences, and a place to write.

Sequences are random ids of real tokens, never special ones: text would hide a row that is wrong, and a special token
may carry a rule of its own. They are drawn from a generator of their own, the same every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vertebra.sequence.tokens import TokenSequence

# Bounds on the largest difference of two logits, in units of the largest logit.
# Measured on the tiny families: fp32 8e-7, fp16 2e-3, bf16 1.2e-2, fp64 1e-15, or 3e-7 where a kernel takes its softmax in
# fp32 whatever comes. The faults that the tests put in give 8e-2 to 1; a run in half precision sees only such coarse ones.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}

INSIDE = 24
"""Positions of a short sequence, where no window is shorter."""
LONGEST_WINDOW = 256
"""A wider window is narrowed for the time of a check: the code is the same, and 4096 positions would take minutes."""
NARROW = 32


@dataclass(frozen=True, eq=False)
class Subject:
    """One backbone under check."""

    backbone: Any
    scratch: Path
    """An empty folder for what a check writes."""

    @cached_property
    def tolerance(self) -> float:
        return TOLERANCE.get(self.backbone.dtype, TOLERANCE[torch.float32])

    @property
    def window(self) -> int | None:
        """What the model's windowed layers see, where it has some."""
        return self.backbone.attention_facts.window

    @property
    def limit(self) -> int:
        """The longest sequence that the model takes."""
        return int(getattr(self.backbone.llm.config, "max_position_embeddings", None) or 1 << 30)

    @property
    def inside(self) -> int:
        """A length that stays inside every window."""
        return min(INSIDE, self.window or INSIDE, self.limit)

    @cached_property
    def _usable(self) -> np.ndarray:
        tokenizer = self.backbone.tokenizer
        kept_out = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        rows = min(len(tokenizer), self.backbone.num_rows)
        return np.array([i for i in range(rows) if i not in kept_out])

    def sequence(self, length: int, seed: int = 0) -> TokenSequence:
        """So many random real tokens, all of them supervised."""
        drawn = np.random.default_rng(seed).choice(self._usable, size=length)
        return TokenSequence.of(drawn, weight=1.0)

    def ids(self, length: int, seed: int = 0) -> torch.Tensor:
        """The same as a batch of one row [1, L], on the model's device."""
        return torch.as_tensor(self.sequence(length, seed).ids, device=self.backbone.device)[None]

    @contextmanager
    def narrow_window(self) -> Iterator[int]:
        """The window to check with: the model's own, or, where that is wide, a narrow one inside this block."""
        window = self.window
        assert window is not None
        if window <= LONGEST_WINDOW:
            yield window
            return
        llm = self.backbone.llm
        holders = [llm.config, *(m for m in llm.modules() if isinstance(getattr(m, "sliding_window", None), int))]
        before = [holder.sliding_window for holder in holders]
        try:
            for holder in holders:
                holder.sliding_window = NARROW
            yield NARROW
        finally:
            for holder, value in zip(holders, before, strict=True):
                holder.sliding_window = value


def difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, in units of the largest expected value; NaN or infinity anywhere is infinite."""
    if got.shape != expected.shape or not bool(torch.isfinite(got).all() and torch.isfinite(expected).all()):
        return float("inf")
    largest = expected.double().abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return float((got.double() - expected.double()).abs().max() / largest)
