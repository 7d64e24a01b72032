"""`Samples`: anything that gives token sequences by number, with their lengths known beforehand.

A sample is a dict of vectors, and a vector that adds nothing new is left out: no `target` means the ids
themselves, no `weight` means 1 everywhere, no `role` means text. So plain text is one array from the tokenizer to the
batch. `epoch` matters to samples that change from pass to pass (dynamic masking, shifted images).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vertebra.data.read.rows import digest
from vertebra.errors import ConfigError
from vertebra.sequence.tokens import TokenSequence

Vectors = dict[str, Any]
"""Vectors of a `TokenSequence` by name, `segments` where there are slots; `ids` is always there."""


class Samples(ABC):
    """Token sequences by number."""

    lengths: np.ndarray
    """How many positions each sample has."""
    mixes: bool = False
    """Whether `order` draws by weights: a view that numbers samples anew would lose that."""

    @abstractmethod
    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        """What sample `index` says in pass `epoch`."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Where the sample comes from, for messages: file and line."""

    def sequence(self, index: int, epoch: int = 0) -> TokenSequence:
        return as_sequence(self.vectors(index, epoch))

    def extra(self, index: int, epoch: int = 0) -> Mapping[str, Any]:
        """What belongs to the sample beside its tokens in pass `epoch`: `images`, `label`."""
        return {}

    def order(self, epoch: int, seed: int, *, shuffle: bool = True) -> np.ndarray:
        """The samples of one epoch, in its order; each once, unless they are a mixture."""
        count = len(self)
        return np.random.default_rng([seed, epoch]).permutation(count) if shuffle else np.arange(count)

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of what the samples are made of: a resumed run compares it."""

    def __len__(self) -> int:
        return len(self.lengths)


def as_sequence(vectors: Vectors) -> TokenSequence:
    """The whole sequence, with everything that was left out."""
    given = {name: value for name, value in vectors.items() if name != "ids"}
    weight = given.pop("weight", 1.0)
    if "slot" in given and np.ndim(weight) == 0:
        weight = np.where(np.asarray(given["slot"])[:, 0] >= 0, 0.0, weight)
    return TokenSequence.of(vectors["ids"], weight=weight, **given)


def is_supervised(vectors: Vectors, *, shift: bool = True) -> bool:
    """Whether a loss would count anything: a first position is predicted by nothing where the loss shifts."""
    weight = vectors.get("weight", 1.0)
    first = 1 if shift else 0
    if np.ndim(weight) == 0:
        return float(weight) > 0 and len(vectors["ids"]) > first
    return bool((np.asarray(weight)[first:] > 0).any())


def refuse_mixture(samples: Samples) -> None:
    """Asked of views that number samples anew."""
    if samples.mixes:
        raise ConfigError(
            "a mixture cannot be cut or picked from: its weights would be lost. Do so to each table, then mix"
        )


class Picked(Samples):
    """Some samples of others, in a given order."""

    def __init__(self, samples: Samples, indices: Sequence[int] | np.ndarray) -> None:
        refuse_mixture(samples)
        self.samples, self.indices = samples, np.asarray(indices, np.int64)
        self.lengths = samples.lengths[self.indices]

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        return self.samples.vectors(int(self.indices[index]), epoch)

    def where(self, index: int) -> str:
        return self.samples.where(int(self.indices[index]))

    def fingerprint(self) -> str:
        return digest("picked", self.samples.fingerprint(), self.indices.tobytes().hex())

    def extra(self, index: int, epoch: int = 0) -> Mapping[str, Any]:
        return self.samples.extra(int(self.indices[index]), epoch)
