"""Statistics in one pass over the data, in pieces of any size: `Counter.add(rows)`, then `Counter.moments()`.

Mean and variance are joined piece by piece (Chan), in 64 bits. Quantiles are exact, as `numpy.quantile` of all the data
has them, and not of a histogram: only the lowest and the highest hundredth can hold them, so with `total`, the number of
rows or anything above it, no more than these tails are kept: 2 % of the data. Without it every row is, and beyond `most`
numbers it is an error that asks for the total. Two counters join exactly: `merge`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vertebra.action.numbers import require_numbers
from vertebra.action.statistics import Moments
from vertebra.errors import DataError

LOW, HIGH = 0.01, 0.99
MOST = 1 << 26
"""Numbers that a counter keeps where nobody gives the total: half a GiB."""


class Counter:
    """What is known so far of one vector of `dims` numbers."""

    def __init__(self, dims: int, *, total: int | None = None, most: int = MOST) -> None:
        self.dims, self.total, self.count = dims, total, 0
        self.mean, self._squares = np.zeros(dims), np.zeros(dims)
        self.min, self.max = np.full(dims, np.inf), np.full(dims, -np.inf)
        self._most = most
        tail = None if total is None else math.floor(LOW * max(total - 1, 0)) + 2
        """How many order statistics from either end a quantile of at most `total` rows can lie between."""
        self._low, self._high = _Tail(dims, tail), _Tail(dims, tail)

    def add(self, rows: Any) -> None:
        """Count rows [N, dims], or one [dims]; NaN is refused, and nothing of the piece is then counted."""
        piece = np.atleast_2d(require_numbers(rows, "rows"))
        if piece.ndim != 2 or piece.shape[1] != self.dims:
            raise DataError(f"rows have the shape {np.shape(rows)}; expected [rows, {self.dims}]")
        if not len(piece):
            return
        count = self.count + len(piece)
        self._check_room(count)
        mean = piece.mean(0)
        self._join(len(piece), mean, ((piece - mean) ** 2).sum(0), piece.min(0), piece.max(0))
        self._low.add(piece)
        self._high.add(-piece)

    def merge(self, other: Counter) -> None:
        """Count everything that another counter has counted; it stays as it was."""
        if other.dims != self.dims:
            raise DataError(f"a counter of {other.dims} dimensions cannot join one of {self.dims}")
        if not other.count:
            return
        self._check_room(self.count + other.count)
        self._check_tails(other)
        self._join(other.count, other.mean, other._squares, other.min, other.max)
        self._low.add(other._low.rows())
        self._high.add(other._high.rows())

    def moments(self, *, mask: Any = None) -> Moments:
        """Everything, as `Moments`; `mask` says which dimensions are normalised."""
        if not self.count:
            raise DataError("no rows were counted; statistics need at least one")
        given = None if mask is None else np.asarray(mask, bool)
        if given is not None and given.shape != (self.dims,):
            raise DataError(
                f"the mask has the shape {given.shape}; expected one entry for each of {self.dims} dimensions"
            )
        return Moments(
            mean=self.mean.copy(),
            std=np.sqrt(self._squares / self.count),
            min=self.min.copy(),
            max=self.max.copy(),
            q01=self._low.quantile(self.count),
            q99=-self._high.quantile(self.count),
            mask=given,
            count=self.count,
        )

    def _join(self, count: int, mean: np.ndarray, squares: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        whole = self.count + count
        off = mean - self.mean
        self.mean = self.mean + off * (count / whole)
        self._squares = self._squares + squares + off**2 * (self.count * count / whole)
        self.min, self.max = np.minimum(self.min, low), np.maximum(self.max, high)
        self.count = whole

    def _check_room(self, count: int) -> None:
        if self.total is not None and count > self.total:
            raise DataError(
                f"{count} rows came, and the total was given as {self.total}; give one that is not too small"
            )
        if self.total is None and count * self.dims > self._most:
            raise DataError(
                f"{count} rows of {self.dims} numbers are more than are kept without a total; give `total`, the number of "
                "rows or anything above it, and 2 % of them are kept"
            )

    def _check_tails(self, other: Counter) -> None:
        """A tail that was cut for fewer rows lacks what a quantile of more may need."""
        theirs = other._low.most
        if theirs is not None and other.count > theirs and (self._low.most is None or theirs < self._low.most):
            raise DataError(
                f"the counter to join was made for {other.total} rows in all, and this one for {self.total or 'any number'}; "
                "give both the total of all the data"
            )


class _Tail:
    """The lowest `most` numbers of each dimension (None: all), sorted when they are asked for."""

    def __init__(self, dims: int, most: int | None) -> None:
        self.most = most
        self._kept = np.zeros((0, dims))
        self._waiting: list[np.ndarray] = []
        self._count = 0

    def add(self, rows: np.ndarray) -> None:
        self._waiting.append(rows)
        self._count += len(rows)
        # as many again as are kept may wait, so that each row is moved a constant number of times
        if self.most is not None and self._count > max(self.most, 4096):
            self.rows()

    def rows(self) -> np.ndarray:
        if self._waiting:
            joined = np.concatenate([self._kept, *self._waiting])
            if self.most is not None and len(joined) > self.most:
                joined = np.partition(joined, self.most - 1, axis=0)[: self.most]
            self._kept, self._waiting, self._count = joined, [], 0
        return self._kept

    def quantile(self, count: int) -> np.ndarray:
        """The hundredth from below of `count` rows, between its two neighbors in proportion, as numpy does it."""
        rows = np.sort(self.rows(), axis=0)
        at = LOW * (count - 1)
        below = math.floor(at)
        above = min(below + 1, count - 1)
        share = at - below
        step = rows[above] - rows[below]
        return rows[below] + step * share if share < 0.5 else rows[above] - step * (1 - share)
