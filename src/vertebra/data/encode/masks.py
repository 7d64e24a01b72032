"""Masks over samples: 15 % of the tokens in whole words, 80/10/10, new in every epoch or fixed.

    text      the   cat  sat  on  the  un ##happy  mat
    ids   CLS the [MASK] sat  on  the [MASK][MASK] mat SEP       whole words, never a special token
    target    the   cat  sat  on  the  un ##happy  mat           the id that was there
    weight  0  0     1    0    0   0    1    1      0   0        what the loss counts; it does not shift

A mask is a function of seed, epoch and the sample's number alone: two processes draw the same, and so does a resume.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vertebra.data.encode.tokens import TextTokenizer, block_size
from vertebra.data.read.rows import digest
from vertebra.data.samples.causal import Blocks
from vertebra.data.samples.samples import Samples, Vectors
from vertebra.data.samples.table import Table
from vertebra.errors import ConfigError, DataError, VocabularyError


@dataclass(frozen=True, kw_only=True)
class Masking:
    """What is masked, and how."""

    rate: float = 0.15
    """The share of tokens that must be predicted."""
    masked: float = 0.8
    """Of the chosen words, how many become the mask token."""
    randomized: float = 0.1
    """… and how many become random tokens; the rest stays as it is."""
    whole_words: bool = True
    """Choose words with all their tokens, not tokens one by one."""
    seed: int = 0
    fixed: bool = False
    """The same mask in every epoch: for evaluation."""

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ConfigError(f"a masking rate of {self.rate}; expected above 0 and at most 1")
        if min(self.masked, self.randomized) < 0 or self.masked + self.randomized > 1 + 1e-9:
            raise ConfigError(f"masked {self.masked} and randomized {self.randomized} must be shares of one whole")


class Masked(Samples):
    """Samples of a table of words (`WordEncoder`), or blocks of it, masked and put between the special tokens."""

    def __init__(self, samples: Table | Blocks, tokenizer: Any, masking: Masking | None = None) -> None:
        table = samples if isinstance(samples, Table) else samples.table
        if "word" not in table.columns:
            raise DataError("masking needs the words: make the table with `WordEncoder(tokenizer)`")
        self.samples, self.masking = samples, masking or Masking()
        self.tokens = TextTokenizer(tokenizer)
        self.mask_id = mask_id(tokenizer)
        self.before, self.after = np.array(self.tokens.prefix, int), np.array(self.tokens.suffix, int)
        self.lengths = samples.lengths + len(self.before) + len(self.after)

    @cached_property
    def _ordinary(self) -> np.ndarray:
        """The ids that a random token is drawn from: no special and no added one."""
        tokenizer = self.tokens.tokenizer
        added = set(tokenizer.get_added_vocab().values()) | set(tokenizer.all_special_ids)
        return np.array(sorted(set(tokenizer.get_vocab().values()) - added))

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        found = self.samples.vectors(index)
        target = found["ids"].astype(np.int64)
        masking = self.masking
        rng = np.random.default_rng([masking.seed, 0 if masking.fixed else epoch, index, 7])
        word = self.samples.words(index) if masking.whole_words else np.arange(len(target))
        chosen, fate = choose(word, masking, rng)
        ids = target.copy()
        ids[fate == 0] = self.mask_id
        at = np.flatnonzero(fate == 1)
        ids[at] = rng.choice(self._ordinary, len(at))
        before, after = len(self.before), len(self.after)
        return {
            "ids": np.concatenate([self.before, ids, self.after]),
            "target": np.concatenate([self.before, target, self.after]),
            "weight": np.pad((chosen * found.get("weight", 1.0)).astype(np.float32), (before, after)),
            "block": np.ones(before + len(ids) + after, np.int8),
        }

    def where(self, index: int) -> str:
        return self.samples.where(index)

    def extra(self, index: int, epoch: int = 0) -> Mapping[str, Any]:
        return self.samples.extra(index, epoch)

    def fingerprint(self) -> str:
        return digest("masked", self.samples.fingerprint(), sorted(asdict(self.masking).items()))


def choose(word: np.ndarray, masking: Masking, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(which tokens must be predicted, what becomes of each: 0 masked, 1 random, 2 kept, −1 not chosen).

    Words are taken in random order until the share is reached; the last one is taken by chance, so that the share is
    right on average. At least one word is chosen: a sample without one would teach nothing.
    """
    starts = np.flatnonzero(np.concatenate([[True], word[1:] != word[:-1]]))
    sizes = np.diff(np.append(starts, len(word)))
    order = rng.permutation(len(starts))
    budget = masking.rate * len(word)
    reached = np.cumsum(sizes[order])
    count = int(np.searchsorted(reached, budget, side="right"))
    if count < len(order):
        left = budget - (reached[count - 1] if count else 0)
        count += bool(rng.random() < left / sizes[order[count]])
    taken = order[: max(count, 1)]
    lot = rng.random(len(taken))
    word_fate = np.full(len(starts), -1)
    word_fate[taken] = np.where(lot < masking.masked, 0, np.where(lot < masking.masked + masking.randomized, 1, 2))
    fate = np.repeat(word_fate, sizes)
    return fate >= 0, fate


def masked_blocks(
    table: Table, tokenizer: Any, *, context: int | None = None, size: int | None = None, masking: Masking | None = None
) -> Masked:
    """All text of a table, joined, cut into blocks that fill the model's context with its special tokens, and masked."""
    extra = len(TextTokenizer(tokenizer).prefix) + len(TextTokenizer(tokenizer).suffix)
    size = block_size(tokenizer, context, size)
    if size < extra + 2:
        raise ConfigError(f"blocks of {size} leave no room for text between {extra} special tokens")
    return Masked(Blocks(table, size - extra), tokenizer, masking)


def mask_id(tokenizer: Any) -> int:
    """The id that hides a token."""
    if tokenizer.mask_token_id is None:
        raise VocabularyError(
            f"this tokenizer ({type(tokenizer).__name__}) has no mask token. Use an encoder's, or add one with "
            "`grow_vocabulary(backbone, ['<mask>'])` and name it: tokenizer.mask_token = '<mask>'"
        )
    return int(tokenizer.mask_token_id)
