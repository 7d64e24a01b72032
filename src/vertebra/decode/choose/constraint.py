"""Constraints: which ids are possible at each step. What can never be met is an error before anything runs.

    AllowedIds(ids)            the same ids at every step: an action's bins, a yes and a no
    AllowedSteps([ids, …])     other ids at each step, and an end after the last
    a grammar                  see `grammar.py`: a regular expression, a JSON schema, a list of answers

The first two are the same for every row, so that only those rows of the head are computed. It knows ids, not models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from vertebra.errors import GenerationError
from vertebra.sequence.length import listed


class Constraint(ABC):
    """What may be generated, step by step. One object serves any number of calls; a call's state is its `Follower`."""

    @abstractmethod
    def follow(
        self, rows: int, *, tokenizer: Any, vocabulary: int, ends: Sequence[int], steps: int, device: torch.device
    ) -> Follower:
        """The state of one call of `rows` rows, `ends` being the ids that end a row and `steps` the most tokens.

        Raises `GenerationError` where the constraint cannot be met.
        """


class Follower(ABC):
    """Where each row of one call stands in its constraint."""

    def ids(self, step: int) -> torch.Tensor | None:
        """The possible ids where they are the same for every row, ascending; None where they are not."""
        return None

    def mask(self, rows: Sequence[int]) -> torch.Tensor | None:
        """[rows, V]: the possible ids of each of these rows, where they differ."""
        return None

    @abstractmethod
    def advance(self, row: int, token: int) -> bool:
        """Note a row's token; True where the row is complete."""


class AllowedIds(Constraint):
    """The same ids at every step, such as `range(31744, 32000)`. An end id ends a row only if it is one of them."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.allowed = _checked(ids, "the constraint")

    def follow(
        self, rows: int, *, tokenizer: Any, vocabulary: int, ends: Sequence[int], steps: int, device: torch.device
    ) -> Follower:
        _inside([self.allowed], vocabulary)
        return _SameForAll([torch.tensor(self.allowed, device=device)], [0] * rows, endless=True)


class AllowedSteps(Constraint):
    """Other ids at each step; a row is complete after the last of them."""

    def __init__(self, steps: Sequence[Sequence[int]]) -> None:
        if not len(steps):
            raise GenerationError("a constraint of no steps allows nothing; give the ids of at least one step")
        self.steps = [_checked(ids, f"step {number} of the constraint") for number, ids in enumerate(steps)]

    def follow(
        self, rows: int, *, tokenizer: Any, vocabulary: int, ends: Sequence[int], steps: int, device: torch.device
    ) -> Follower:
        _inside(self.steps, vocabulary)
        if steps < len(self.steps):
            raise GenerationError(
                f"the constraint has {len(self.steps)} steps, and only {steps} tokens may be generated; raise max_new_tokens"
            )
        known: dict[tuple[int, ...], torch.Tensor] = {}
        tables = [known.setdefault(ids, torch.tensor(ids, device=device)) for ids in self.steps]
        return _SameForAll(tables, [0] * rows, endless=False)


class _SameForAll(Follower):
    def __init__(self, tables: list[torch.Tensor], counts: list[int], *, endless: bool) -> None:
        self._tables, self._counts, self._endless = tables, counts, endless

    def ids(self, step: int) -> torch.Tensor | None:
        if self._endless:
            return self._tables[0]
        return self._tables[step] if step < len(self._tables) else None

    def advance(self, row: int, token: int) -> bool:
        self._counts[row] += 1
        return not self._endless and self._counts[row] >= len(self._tables)


def _checked(ids: Sequence[int], what: str) -> tuple[int, ...]:
    found = sorted(set(ids))
    if not found:
        raise GenerationError(f"{what} allows no id at all; give at least one")
    wrong = [item for item in found if not isinstance(item, int) or isinstance(item, bool) or item < 0]
    if wrong:
        raise GenerationError(f"{what} holds {wrong[:4]}; expected token ids, whole numbers from 0 on")
    return tuple(found)


def _inside(steps: Sequence[tuple[int, ...]], vocabulary: int) -> None:
    faults = [f"step {number} allows {ids[-1]}" for number, ids in enumerate(steps) if ids[-1] >= vocabulary]
    if faults:
        raise GenerationError(f"{listed(faults)}; the head has the ids 0 to {vocabulary - 1}")
