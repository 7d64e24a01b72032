"""What a batch looks like to decoding, read off it once: padding, open columns, where each row goes on.

Read with numpy: for the short vectors of one call that is several times as fast as a tensor operation each, and a
batch on a device is looked at in one go. It knows batches, not models.
"""

from __future__ import annotations

import copy
from functools import cached_property

import numpy as np
import torch

from vertebra.sequence.batch import Batch


class ColumnFacts:
    """The columns of a batch, as the next token of each row will find them."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.real = self._array("attention_mask") != 0
        self.position = self._array("position_ids")
        self._columns = np.arange(self.real.shape[1])

    def _array(self, key: str) -> np.ndarray:
        return self._batch[key].cpu().numpy()

    @cached_property
    def document(self) -> np.ndarray:
        return self._array("document")

    @cached_property
    def padded(self) -> bool:
        return not self.real.all()

    @cached_property
    def causal(self) -> bool:
        """Whether no column is of a block whose columns see each other, or of a branch."""
        return not self._array("block").any()

    @property
    def branched(self) -> bool:
        """Whether a row has branches (`vertebra.sequence.branches`)."""
        return not self.causal and bool((self._array("block") < 0).any())

    @cached_property
    def ends_real(self) -> bool:
        """Whether the last column of every row is real: where the next token is predicted."""
        return not self.padded or bool(self.real[:, -1].all())

    @cached_property
    def plain(self) -> bool:
        """One document a row, no padding, nothing both ways, positions that count up by one: plain causal attention."""
        if self.padded or not self.causal:
            return False
        counted = (self.position == self.position[:, :1] + self._columns).all()
        return bool(counted and (self.document == self.document[:, :1]).all())

    @cached_property
    def last(self) -> np.ndarray:
        """[B, 1]: the last real column of each row."""
        if not self.padded:
            return np.full((len(self.real), 1), self.real.shape[1] - 1)
        return (self.real * (self._columns + 1)).argmax(1)[:, None]

    @cached_property
    def next_position(self) -> np.ndarray:
        """[B, 1]: the position of the token that comes next."""
        if not self.padded:
            return self.position[:, -1:] + 1
        return np.take_along_axis(self.position, self.last, 1) + 1

    @cached_property
    def next(self) -> int:
        """The highest position that comes next."""
        return int(self.next_position.max())

    @cached_property
    def open(self) -> np.ndarray:
        """[B, L]: what the next token may see: real, and of the document that is being continued."""
        return self.real & (self.document == np.take_along_axis(self.document, self.last, 1))

    @cached_property
    def all_open(self) -> bool:
        return self.plain or bool(self.open.all())

    @cached_property
    def counts_by_column(self) -> bool:
        """Whether columns and positions run together in every row, so that a window over one is one over the other."""
        if self.plain:
            return True
        low, high = self._offsets
        return bool((low >= high).all())  # a row of padding alone has nothing to disagree with

    @cached_property
    def goes_on_by_column(self) -> bool:
        """The same with the next token counted: it does not where a row ends in padding and is to go on behind it."""
        if self.plain:
            return True
        following = self.next_position[:, 0] - len(self._columns)
        low, high = self._offsets
        return bool((np.minimum(low, following) >= np.maximum(high, following)).all())

    @cached_property
    def _offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """[B], [B]: the least and the largest distance of an open column's position from its column."""
        offset = self.position - self._columns
        big = np.iinfo(np.int64).max
        return np.where(self.open, offset, big).min(1), np.where(self.open, offset, -big).max(1)

    @property
    def longest(self) -> int:
        """How many positions the longest row takes."""
        if self.plain:
            return self.next
        return int(self.position.max(where=self.real, initial=-1)) + 1

    def of(self, batch: Batch) -> ColumnFacts:
        """The same of the same batch on another device."""
        new = copy.copy(self)
        new._batch = batch
        return new

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """One of the arrays, where the batch is."""
        return torch.from_numpy(array).to(self._batch.device)
