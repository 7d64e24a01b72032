"""What is computed of an instruction, kept from one control step to the next.

    message, images after     <s> … Reach the red square. │ ▣▣…▣ … <ACT>       everything before the images is kept
    OpenVLA's own layout      <s> ▣▣…▣ In: What action …                       images come first: nothing but <s> is left

A causal prefix does not see what comes behind it, so its keys are those of every step. Kept for the last few instructions;
the weights must not change meanwhile (`Policy.reset` forgets). It knows sequences and states, and no actions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from vertebra.decode.state.decoding import DecodeState
from vertebra.decode.state.prefill import prefill
from vertebra.model.model import Model
from vertebra.policies.prompts import PolicyPrompt

LEAST = 4
"""Positions of a prefix that is worth keeping."""
MOST = 8
"""Instructions that are kept."""


class Prefixes:
    """States of one row, by the ids of what they hold."""

    def __init__(self) -> None:
        self._states: OrderedDict[tuple[int, ...], DecodeState] = OrderedDict()
        self.hits = 0
        """Calls that found theirs computed already."""

    def forget(self) -> None:
        self._states.clear()

    def shared(self, model: Model, rows: Sequence[PolicyPrompt]) -> tuple[DecodeState, list[PolicyPrompt]] | None:
        """(the state of what all rows begin with, a row for each; what remains of each row), or None: nothing is shared."""
        length = _plain(rows)
        if length < LEAST:
            return None
        first = rows[0].sequence
        key = tuple(first.ids[:length].tolist())
        state = self._states.get(key)
        if state is None:
            state = prefill(model, [first.cut(0, length)])
        else:
            self.hits += 1
        self._states[key] = state
        self._states.move_to_end(key)
        while len(self._states) > MOST:
            self._states.popitem(last=False)
        rest = [
            PolicyPrompt(sequence=row.sequence.cut(length, len(row.sequence)), features=row.features) for row in rows
        ]
        return state.fork([0] * len(rows)), rest

    def state(self, model: Model, rows: Sequence[PolicyPrompt]) -> DecodeState | None:
        """The rows as one state, ready to be decoded; None: nothing is shared."""
        found = self.shared(model, rows)
        if found is None:
            return None
        state, rest = found
        features: Any = [row.features for row in rest]
        state.extend([row.sequence for row in rest], features)
        return state


def _plain(rows: Sequence[PolicyPrompt]) -> int:
    """Positions that all rows begin with alike, before the first slot of any; the last one is never among them."""
    length = min(len(row.sequence) - 1 for row in rows)
    for row in rows:
        slots = np.flatnonzero(row.sequence.slot[:, 0] >= 0)
        length = min(length, int(slots[0]) if len(slots) else length)
    for row in rows[1:]:
        differs = np.flatnonzero(rows[0].sequence.ids[:length] != row.sequence.ids[:length])
        length = int(differs[0]) if len(differs) else length
    blocks = np.flatnonzero(rows[0].sequence.block[:length])
    return int(blocks[0]) if len(blocks) else length
