"""Many texts → one flat array of ids, as fast as the tokenizer allows, and the words behind the ids on request.

    texts    "def f(x):"  "x = 1"
    ids      [ 12 7 88 3 ┊ 9 41 5 ]          one array for all
    offsets  [ 0         4        7 ]        text i is ids[offsets[i] : offsets[i + 1]]

No special token is put around a text here, and none is recognised inside it: a typed `</s>` stays text.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from vertebra.backbone.habits import fingerprint, probe, token_id
from vertebra.data.read.rows import digest
from vertebra.errors import VocabularyError
from vertebra.prompt.guard import Guard, guarded_tokens, plain_copy

AT_ONCE = 250
"""Texts handed to the tokenizer at a time: enough to keep it busy, few enough to stay in the processor's cache."""

UNBOUNDED = 10**9
"""A `model_max_length` above this is no length (Hugging Face writes 1e30 for "not known")."""


class Flat(NamedTuple):
    """Rows of numbers, one after the other."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


class TextTokenizer:
    """A fast tokenizer, for plain text in bulk; it goes to other processes with its tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise VocabularyError(
                f"{type(tokenizer).__name__} is no fast tokenizer; data is tokenized in bulk by the `tokenizers` "
                "library alone. Load it with AutoTokenizer, or convert it."
            )
        self.tokenizer = tokenizer

    def __getstate__(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer}

    @cached_property
    def _json(self) -> str:
        return str(self.tokenizer.backend_tokenizer.to_str())

    @cached_property
    def _backend(self) -> Any:
        return plain_copy(self._json)

    @cached_property
    def _added(self) -> tuple[str, ...]:
        decoder = self.tokenizer.backend_tokenizer.get_added_tokens_decoder()
        return guarded_tokens(decoder.values())

    @cached_property
    def _is_added(self) -> np.ndarray:
        ids = [self._backend.token_to_id(token) for token in self._added]
        table = np.zeros(max(ids, default=-1) + 2, bool)
        table[ids] = True
        return table

    @cached_property
    def _guard(self) -> Guard:
        return Guard(self._json, self._added)

    @cached_property
    def prefix(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text by itself."""
        return _frame(self.tokenizer)[0]

    @cached_property
    def suffix(self) -> tuple[int, ...]:
        """What it puts behind one."""
        return _frame(self.tokenizer)[1]

    @cached_property
    def fingerprint(self) -> str:
        """The ids of the probe strings, and the whole of the vocabulary and its rules: no change goes unseen."""
        return f"{fingerprint(self.tokenizer)}-{digest(self._backend.to_str())}"

    @cached_property
    def words_by_offsets(self) -> bool:
        """Whether the tokenizer has no pre-tokenizer: its word ids are then all 0 and words come from offsets."""
        found = self._backend.encode("one two three", add_special_tokens=False).word_ids
        return len(set(found)) < 3

    def __call__(self, texts: Sequence[str]) -> Flat:
        """The ids of all texts."""
        ids = array("i")
        ends = array("q", [0])
        for start in range(0, len(texts), AT_ONCE):
            part = texts[start : start + AT_ONCE]
            for encoding in self._backend.encode_batch_fast(part, add_special_tokens=False):
                ids.fromlist(encoding.ids)
                ends.append(len(ids))
        flat = Flat(np.frombuffer(ids, np.int32) if ids else np.zeros(0, np.int32), np.frombuffer(ends, np.int64))
        return self._without_typed_tokens(texts, flat)

    def with_words(self, texts: Sequence[str]) -> tuple[Flat, np.ndarray]:
        """The ids of all texts, and for each id the number of its word, counted on through all texts."""
        rows: list[np.ndarray] = []
        words: list[np.ndarray] = []
        next_word = 0
        for start in range(0, len(texts), AT_ONCE):
            part = list(texts[start : start + AT_ONCE])
            for text, encoding in zip(part, self._backend.encode_batch(part, add_special_tokens=False), strict=True):
                if self._has_added(np.array(encoding.ids, np.int32)).any():
                    encoding = self._as_text(text)
                rows.append(np.array(encoding.ids, np.int32))
                number = word_numbers(text, encoding, by_offsets=self.words_by_offsets)
                words.append(number + next_word)
                next_word += int(number[-1]) + 1 if len(number) else 0
        return joined(rows), np.concatenate(words) if words else np.zeros(0, np.int32)

    def _has_added(self, ids: np.ndarray) -> np.ndarray:
        """Which ids are added tokens; the last entry of the table stands for every id beyond it."""
        return self._is_added[np.minimum(ids, len(self._is_added) - 1)]

    def _as_text(self, text: str) -> Any:
        """A text in which an added token is spelled out, encoded as the text that it is."""
        guard = self._guard
        if guard.collides(text):
            guard = Guard(self._json, self._added, avoid=text)
        return guard.backend.encode(text, add_special_tokens=False)

    def _without_typed_tokens(self, texts: Sequence[str], flat: Flat) -> Flat:
        typed = np.flatnonzero(self._has_added(flat.values))
        if not len(typed):
            return flat
        again = {int(row) for row in np.searchsorted(flat.offsets, typed, side="right") - 1}
        rows = [
            np.array(self._as_text(text).ids, np.int32) if row in again else flat.row(row)
            for row, text in enumerate(texts)
        ]
        return joined(rows)


def one_thread_in_this_process() -> None:
    """Set in a forked process, where the tokenizer's threads are gone: it would say so, and warn, by itself."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def joined(rows: Sequence[np.ndarray], dtype: Any = np.int32) -> Flat:
    """Rows as one flat array."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return Flat(np.concatenate(rows).astype(dtype, copy=False) if rows else np.zeros(0, dtype), offsets)


def framed(flat: Flat, before: Sequence[int], after: Sequence[int]) -> Flat:
    """Every row with the same ids put before and behind it."""
    if not before and not after:
        return flat
    extra = len(before) + len(after)
    count = len(flat)
    offsets = flat.offsets + np.arange(count + 1) * extra
    values = np.empty(int(offsets[-1]), np.int32)
    inner = np.ones(len(values), bool)
    for number, token in enumerate(before):
        inner[offsets[:-1] + number] = False
        values[offsets[:-1] + number] = token
    for number, token in enumerate(reversed(after), 1):
        inner[offsets[1:] - number] = False
        values[offsets[1:] - number] = token
    values[inner] = flat.values
    return Flat(values, offsets)


def word_numbers(text: str, encoding: Any, *, by_offsets: bool) -> np.ndarray:
    """For each token the number of the word it belongs to, from 0, rising.

    A word is what the pre-tokenizer says; where there is none, a run of letters and digits, or a single other mark.
    """
    if not by_offsets:
        found = np.array([-1 if word is None else word for word in encoding.word_ids], np.int32)
        return _renumbered(found)
    if not encoding.ids:
        return np.zeros(0, np.int32)
    of_char = np.full(len(text) + 1, -1, np.int64)
    for number, match in enumerate(_WORD.finditer(text)):
        of_char[match.start() : match.end()] = number
    # The first character at or after each that belongs to a word: a token may begin with the space before its word.
    index = np.where(of_char >= 0, np.arange(len(of_char)), len(text))
    following = np.minimum.accumulate(index[::-1])[::-1]
    start, stop = np.array(encoding.offsets, np.int64).T
    first = following[np.minimum(start, len(text))]
    inside = first < np.maximum(stop, start + 1)
    lone = -2 - np.arange(len(start))  # white space alone: a word of its own
    return _renumbered(np.where(inside, of_char[first], lone))


_WORD = re.compile(r"\w+|[^\w\s]")


def _renumbered(found: np.ndarray) -> np.ndarray:
    """0, 1, 2 … for each run of equal numbers."""
    if not len(found):
        return np.zeros(0, np.int32)
    return np.concatenate([[0], np.cumsum(found[1:] != found[:-1])]).astype(np.int32)


def _frame(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    habits = probe(tokenizer)
    return tuple(i for i in (habits.bos_id,) if i is not None), tuple(i for i in (habits.eos_id,) if i is not None)


def stop_id(tokenizer: Any, stop: str | None = None) -> int:
    """The id that ends a document: `stop` where named, else the tokenizer's EOS."""
    token = stop if stop is not None else tokenizer.eos_token
    if token is None:
        raise VocabularyError("the tokenizer has no EOS; name the token that ends a document: stop='<|endoftext|>'")
    found = token_id(tokenizer, token)
    if found is None:
        raise VocabularyError(f"the stop token {token!r} is not in the vocabulary; add it first (`grow_vocabulary`)")
    return found


def block_size(tokenizer: Any, context: int | None = None, requested: int | None = None) -> int:
    """The size of a block: the smaller of the model's context and the tokenizer's limit, or less where requested."""
    limits = [int(limit) for limit in (context, tokenizer.model_max_length) if limit and limit < UNBOUNDED]
    if requested is None:
        if not limits:
            raise VocabularyError(
                "neither the model nor the tokenizer limits the length of a sequence "
                f"(model_max_length is {tokenizer.model_max_length:.0e}); give the block size"
            )
        return min(limits)
    if requested < 2 or (limits and requested > min(limits)):
        allowed = f"2 to {min(limits)}" if limits else "2 or more"
        raise VocabularyError(
            f"a block size of {requested}; expected {allowed}: the model's context and model_max_length"
        )
    return requested
