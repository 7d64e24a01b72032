"""Which samples share a batch: in order, shuffled, grouped by length, or packed; for any number of ranks.

A plan is a pure function of the samples, the settings and the epoch, and is the same on every rank:

    epoch ─► order of samples ─► rows (one sample, or several packed) ─► global batches ─► each rank's share

Every rank takes the same number of batches. The last global batch is shared out evenly; where it has fewer rows than
there are ranks, a rank left without one repeats a row with weight 0, so that nothing counts twice and nobody waits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from vertebra.data.read.progress import progress
from vertebra.data.samples.samples import Samples
from vertebra.errors import ConfigError
from vertebra.sequence.packing import pack

LARGE = 200_000
"""Samples from which on packing has a progress bar."""

GROUP = 100
"""Batches' worth of samples that are sorted by length together."""


class Share(NamedTuple):
    """One batch of one rank."""

    epoch: int
    step: int
    rows: list[list[int]]
    """Samples by number; those of one list share a row."""
    filler: bool = False
    """Whether the row only fills the rank's place: it is to weigh nothing."""


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """One epoch: the samples in order, where each row begins, where each global batch begins."""

    epoch: int
    members: np.ndarray
    rows: np.ndarray
    batches: np.ndarray

    def __len__(self) -> int:
        return len(self.batches) - 1

    def share(self, step: int, rank: int, world: int) -> Share:
        first, last = int(self.batches[step]), int(self.batches[step + 1])
        count = last - first
        start, stop = first + count * rank // world, first + count * (rank + 1) // world
        if start == stop:
            return Share(self.epoch, step, [self._row(first)], filler=True)
        return Share(self.epoch, step, [self._row(row) for row in range(start, stop)])

    def _row(self, row: int) -> list[int]:
        return [int(index) for index in self.members[self.rows[row] : self.rows[row + 1]]]


class Sampler(ABC):
    """How samples become batches. `batch_size` counts the rows of one rank."""

    def __init__(self, batch_size: int, *, seed: int = 0, drop_last: bool = False) -> None:
        if batch_size < 1:
            raise ConfigError(f"a batch size of {batch_size}; expected 1 or more")
        self.batch_size, self.seed, self.drop_last = batch_size, seed, drop_last

    @abstractmethod
    def plan(self, samples: Samples, epoch: int, world: int = 1) -> EpochPlan: ...

    def settings(self) -> dict[str, Any]:
        """What its plans follow from, the number of ranks apart; plain values."""
        return {"sampler": type(self).__name__, **vars(self)}

    def _rng(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, 3])

    def _edges(self, rows: int, size: int) -> np.ndarray:
        """Where global batches of `size` rows begin."""
        edges = np.append(np.arange(0, rows, size), rows)
        if self.drop_last and len(edges) > 1 and edges[-1] - edges[-2] < size:
            edges = edges[:-1]
        if len(edges) < 2:
            raise ConfigError(
                f"{rows} rows are less than one global batch of {size}; nothing would be left to train on"
            )
        return edges


class InOrder(Sampler):
    """The samples as they come: for evaluation."""

    def plan(self, samples: Samples, epoch: int, world: int = 1) -> EpochPlan:
        order = samples.order(epoch, self.seed, shuffle=False)
        return EpochPlan(epoch, order, np.arange(len(order) + 1), self._edges(len(order), self.batch_size * world))


class Shuffled(Sampler):
    """The samples in a new order every epoch."""

    def plan(self, samples: Samples, epoch: int, world: int = 1) -> EpochPlan:
        order = samples.order(epoch, self.seed)
        return EpochPlan(epoch, order, np.arange(len(order) + 1), self._edges(len(order), self.batch_size * world))


class LengthGrouped(Sampler):
    """Samples of like length share a batch: shuffled, sorted within stretches of some hundred batches, batches shuffled.

    The batch with the longest sample comes first, so that a batch too large for the memory shows at once.
    """

    def plan(self, samples: Samples, epoch: int, world: int = 1) -> EpochPlan:
        size = self.batch_size * world
        order = samples.order(epoch, self.seed)
        # At least four stretches where there are enough samples: one alone would be the same sorted order every epoch.
        stretch = size * max(1, min(GROUP, len(order) // (4 * size)))
        lengths = samples.lengths[order]
        by_length = np.lexsort((lengths, np.arange(len(order)) // stretch))
        order, lengths = order[by_length], lengths[by_length]
        starts = np.arange(0, len(order), size)
        shuffled = self._rng(epoch).permutation(len(starts))
        longest = int(np.flatnonzero(shuffled == int(lengths.argmax()) // size)[0])
        shuffled[[0, longest]] = shuffled[[longest, 0]]
        # A shorter batch at the end of the data keeps its place at the end of the plan.
        if len(order) % size:
            shuffled = np.append(shuffled[shuffled != len(starts) - 1], len(starts) - 1)
        members = np.concatenate([order[starts[batch] : starts[batch] + size] for batch in shuffled])
        return EpochPlan(epoch, members, np.arange(len(members) + 1), self._edges(len(members), size))


class Packed(Sampler):
    """Several samples a row, best fit, each still a document of its own; rows of at most `capacity` positions."""

    def __init__(self, batch_size: int, capacity: int, *, seed: int = 0, drop_last: bool = False) -> None:
        super().__init__(batch_size, seed=seed, drop_last=drop_last)
        self.capacity = capacity

    def plan(self, samples: Samples, epoch: int, world: int = 1) -> EpochPlan:
        order = samples.order(epoch, self.seed)
        # Equal lengths keep their (shuffled) order, so rows have other members every epoch, and as many rows.
        with progress("packing", len(order), unit="samples", show=len(order) > LARGE) as advance:
            packed = pack(samples.lengths[order], self.capacity)
            advance(len(order))
        rows = [packed[row] for row in self._rng(epoch).permutation(len(packed))]
        members = order[np.concatenate([np.asarray(row) for row in rows])]
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        return EpochPlan(epoch, members, starts, self._edges(len(rows), self.batch_size * world))


def slots_per_token(samples: Samples, plan: EpochPlan, *, world: int = 1, multiple_of: int = 1) -> float:
    """Positions that are computed for each useful one: 1 is no padding at all."""
    row_lengths = np.add.reduceat(samples.lengths[plan.members], plan.rows[:-1])
    slots = 0
    for first, last in pairwise(plan.batches.tolist()):
        edges = [first + (last - first) * rank // world for rank in range(world + 1)]
        for start, stop in pairwise(edges):
            if stop > start:
                longest = int(row_lengths[start:stop].max())
                slots += (stop - start) * -(-longest // multiple_of) * multiple_of
    return slots / int(row_lengths[: int(plan.batches[-1])].sum())
