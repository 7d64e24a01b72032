"""`Prefilled`: what many rows begin with, computed once: a page, and any number of questions about it.

    <s> ▣×196 line ▢ ↵ line ▢ ↵ … │ What is the total? …          kept: keys and values left of the bar
                                   │ Who sold it? …                each question: a fork, and its own few columns

Rows are whole, as they were rendered: how much of each is there already is looked up, not assumed. A tokenizer that joins
the last newline with a question costs that row one position and nothing else. It knows no pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vertebra.decode.state.decoding import DecodeState
from vertebra.decode.state.prefill import prefill
from vertebra.errors import GenerationError
from vertebra.model.model import Model, model_of
from vertebra.sequence.tokens import TokenSequence

Features = Mapping[str, Any]


class Prefilled:
    """The first `upto` positions of a row, computed; other rows that begin alike go on from there.

    `features`: the raw items of the row (`model.prepare`). `keeping`: further options of `prefill`.
    """

    def __init__(
        self,
        model: Any,
        sequence: TokenSequence,
        features: Features | None = None,
        *,
        upto: int | None = None,
        **keeping: Any,
    ) -> None:
        self.model: Model = model_of(model)
        stop = len(sequence) - 1 if upto is None else upto
        if not 0 < stop <= len(sequence):
            raise GenerationError(f"upto is {upto}; expected 1 to {len(sequence)}, the positions of the row")
        self.sequence = sequence.cut(0, _whole_items(sequence, stop, features or {}))
        self.features = _items(sequence, features or {}, 0, len(self.sequence))
        batch = self.model.collate([self.sequence], [self.features or None], side="left")
        self.state: DecodeState = prefill(self.model, batch, **keeping)
        self.rows = 0
        """Rows that went on from it so far."""

    def __len__(self) -> int:
        return len(self.sequence)

    def begin(self, rows: Sequence[tuple[TokenSequence, Features | None]]) -> DecodeState:
        """Whole rows as one state, ready to be decoded; what is kept is not changed and not computed again."""
        if not rows:
            raise GenerationError("no rows were given; give at least one (sequence, features)")
        shared = min(self._shared(number, *row) for number, row in enumerate(rows))
        state = self.state.fork([0] * len(rows))
        if shared < len(self):
            state.trim(shared)
        rest = [sequence.cut(shared, len(sequence)) for sequence, _ in rows]
        features = [_items(sequence, given or {}, shared, len(sequence)) or None for sequence, given in rows]
        state.extend(rest, features)
        self.rows += len(rows)
        return state

    def _shared(self, number: int, sequence: TokenSequence, features: Features | None) -> int:
        """Positions of a row that are those of the prefix; one is always left to be computed."""
        own = self.sequence
        most = min(len(own), len(sequence) - 1)
        differs = np.flatnonzero(
            (own.ids[:most] != sequence.ids[:most])
            | (own.type[:most] != sequence.type[:most])
            | (own.block[:most] != sequence.block[:most])
            | (own.slot[:most, 1] != sequence.slot[:most, 1])
            | (_names(own, most) != _names(sequence, most))
        )
        shared = int(differs[0]) if len(differs) else most
        shared = _whole_items(sequence, shared, features or {})
        for name, items in _items(sequence, features or {}, 0, shared).items():
            known = np.asarray(self.features[name])[: len(items)] if name in self.features else None
            if known is None or not np.array_equal(known, np.asarray(items)):
                raise GenerationError(
                    f"row {number} begins like what is kept, and its `{name}` are others: another page. Make another "
                    "Prefilled of it"
                )
        if not shared:
            raise GenerationError(
                f"row {number} has nothing in common with what is kept; it begins with other tokens. Render it from the same "
                "lines, in the same order"
            )
        return shared


def _names(sequence: TokenSequence, stop: int) -> np.ndarray:
    """The segment of each position, by name."""
    return np.asarray([*sequence.segments, ""], object)[sequence.slot[:stop, 0]]


def _whole_items(sequence: TokenSequence, stop: int, features: Features) -> int:
    """The same place or one before it, where no item's slots and no block are parted."""
    block = sequence.block
    while stop and stop < len(sequence) and block[stop] > 0 and block[stop - 1] == block[stop]:
        stop -= 1
    for name, items in features.items():
        if name not in sequence.segments or not len(items):
            continue
        here = sequence.slot[:, 0] == sequence.segments.index(name)
        each = int(here.sum()) // len(items)
        left = int(here[:stop].sum()) % max(each, 1)
        if left:
            stop = int(np.flatnonzero(here[:stop])[-left])
    return stop


def _items(sequence: TokenSequence, features: Features, start: int, stop: int) -> dict[str, Any]:
    """The raw items whose slots stand in `start:stop`."""
    found = {}
    for name, items in features.items():
        if name not in sequence.segments or not len(items):
            continue
        here = sequence.slot[:, 0] == sequence.segments.index(name)
        each = max(int(here.sum()) // len(items), 1)
        first, last = int(here[:start].sum()) // each, int(here[:stop].sum()) // each
        if last > first:
            found[name] = items[first:last]
    return found
