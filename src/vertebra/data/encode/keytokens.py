"""Key tokens: words that matter (`plt`, `pd`, `fit`) weigh more, and texts without any can be left out.

    ids      import ▁pandas ▁as ▁pd ┊ model .fit ( x )         keys: pd, fit
    weight     1      1      1   3      1    3   1 1 1         boost 3, by token
    weight     2      2      2   2      2    2   2 2 2         boost 1, by sample: 1 + how many keys it has

Keys are found in the text that the ids spell, so it does not matter whether one is a single token, a token together
with other marks (`.fit`), or several tokens; and only whole words count: the `fit` in `profit` is no key. Whether a key
is one token, with and without a space before it, is reported by `report`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from vertebra.data.encode.tokens import TextTokenizer
from vertebra.data.read.rows import digest
from vertebra.data.samples.samples import Samples, Vectors
from vertebra.errors import ConfigError, UnknownNameError

By = Literal["token", "sample"]


@dataclass(frozen=True)
class KeyWord:
    """One word, and the ids that spell it."""

    word: str
    alone: tuple[int, ...]
    """Its ids at the beginning of a text."""
    after_space: tuple[int, ...]
    """Its ids in the middle of one."""

    @property
    def is_token(self) -> bool:
        """Whether it is one token, with and without a space before it."""
        return len(self.alone) == 1 and len(self.after_space) == 1

    def __str__(self) -> str:
        if self.is_token:
            return f"{self.word}: one token, with and without a space before it"
        return (
            f"{self.word}: a span of {len(self.alone)} tokens at the beginning, {len(self.after_space)} after a space"
        )


class KeyTokens:
    """Key words in the ids of one tokenizer: `KeyTokens(tokenizer, ["plt", "pd", "fit"])`."""

    def __init__(self, tokenizer: Any, words: Collection[str]) -> None:
        _check_words(words)
        self._texts = _token_texts(tokenizer)
        self._pattern = _whole_words(tuple(words))
        bulk = TextTokenizer(tokenizer)
        self.keys: dict[str, KeyWord] = {}
        for word in dict.fromkeys(words):
            flat = bulk([word, f"a {word}", "a"])
            after_space = flat.row(1)[len(flat.row(2)) :]
            self.keys[word] = KeyWord(word, tuple(flat.row(0).tolist()), tuple(after_space.tolist()))

    def occurrences(self, ids: np.ndarray) -> list[tuple[int, int, str]]:
        """(from, to, word) of every key in these ids: all tokens that have a part in it."""
        last = len(self._texts) - 1  # an id beyond the vocabulary is a row that only pads the matrix: it says nothing
        pieces = [self._texts[token] if 0 <= token <= last else "" for token in ids.tolist()]
        ends = np.cumsum([len(piece) for piece in pieces])
        found = []
        for match in self._pattern.finditer("".join(pieces)):
            start = int(np.searchsorted(ends, match.start(), side="right"))
            stop = int(np.searchsorted(ends, match.end() - 1, side="right")) + 1
            found.append((start, stop, match[0]))
        return found

    def report(self) -> list[str]:
        """What each key is made of, a line each."""
        return [str(key) for key in self.keys.values()]


class Weighted(Samples):
    """Samples in which key words count more.

    by="token": a key's own tokens count `boost` times. by="sample": the whole sample counts `boost` · (1 + its keys),
    as in the well-known course. A position that counts nothing goes on counting nothing.
    """

    def __init__(self, samples: Samples, keys: KeyTokens, *, boost: float = 1.0, by: By = "sample") -> None:
        if by not in ("token", "sample"):
            raise UnknownNameError("way to weigh", by, ("token", "sample"))
        if not 0 < boost < float("inf"):
            raise ConfigError(f"a boost of {boost}; expected a number above 0")
        self.samples, self.keys, self.boost, self.by = samples, keys, boost, by
        self.lengths, self.mixes = samples.lengths, samples.mixes

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        vectors = self.samples.vectors(index, epoch)
        # What must be predicted is what counts: under a mask the id is not the word.
        found = self.keys.occurrences(np.asarray(vectors.get("target", vectors["ids"])))
        factor = np.ones(len(vectors["ids"]), np.float32)
        if self.by == "sample":
            factor *= self.boost * (1 + len(found))
        else:
            for start, stop, _ in found:
                factor[start:stop] = self.boost
        return vectors | {"weight": factor * vectors.get("weight", np.float32(1.0))}

    def order(self, epoch: int, seed: int, *, shuffle: bool = True) -> np.ndarray:
        return self.samples.order(epoch, seed, shuffle=shuffle)

    def where(self, index: int) -> str:
        return self.samples.where(index)

    def extra(self, index: int, epoch: int = 0) -> Mapping[str, Any]:
        return self.samples.extra(index, epoch)

    def fingerprint(self) -> str:
        return digest("weighted", self.samples.fingerprint(), sorted(self.keys.keys), self.boost, self.by)


class KeywordFilter:
    """Which texts have key words, as whole words: `prepare(…, keep=KeywordFilter(["pd", "plt"]))`."""

    def __init__(self, words: Collection[str], *, at_least: int = 1) -> None:
        _check_words(words)
        self.words, self.at_least = tuple(words), at_least
        self.key = digest("keywords", *self.words, at_least)
        """What a cache is keyed by."""

    def __call__(self, text: str) -> bool:
        for count, _ in enumerate(_whole_words(self.words).finditer(text), 1):
            if count >= self.at_least:
                return True
        return self.at_least <= 0


def _check_words(words: Collection[str]) -> None:
    if isinstance(words, str) or not words:
        raise ConfigError(f"key words are a list such as ['plt', 'fit']; got {words!r}")
    wrong = [word for word in words if not re.fullmatch(r"\w+", word)]
    if wrong:
        raise ConfigError(f"a key is one word of letters, digits and underscores; these are not: {wrong}")


@lru_cache
def _whole_words(words: Collection[str]) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(map(re.escape, words)) + r")\b")


def _token_texts(tokenizer: Any) -> list[str]:
    """What each id adds to a text, the space before it included; nothing for added tokens."""
    backend = tokenizer.backend_tokenizer
    # Decoded behind a letter: a decoder drops the space at the beginning of a text.
    before = backend.encode("a", add_special_tokens=False).ids[-1:]
    length = len(backend.decode(before))
    vocabulary = set(tokenizer.get_vocab().values())
    known = vocabulary - set(tokenizer.get_added_vocab().values())
    decoded = backend.decode_batch([[*before, i] if i in known else before for i in range(max(vocabulary) + 1)])
    return [text[length:] for text in decoded]
