"""The attention mask of a decode step, one new column a row, without building a tensor a step.

    columns      pad pad  a   b   c   new              room   min min 0 0 0 0 0 0 …     one buffer, made once
    full layer   room[…, : K]                          window of 4   room[…, K - 4 : K]     both are views of it

A step sees every open column of its row: real, and of the document that is being continued. Where all columns are
open and the kernel needs no mask, there is none. It knows batches and what a model's attention is like; the masks of
longer passes come from `sequence.masks`.
"""

from __future__ import annotations

from typing import Any

import torch

from vertebra.decode.state.column_facts import ColumnFacts
from vertebra.sequence.masks import SLIDING, AttentionFacts


class StepMasks:
    """Masks for the columns that follow a batch."""

    def __init__(
        self, layout: ColumnFacts, facts: AttentionFacts, *, dtype: torch.dtype, static_length: int | None = None
    ) -> None:
        self._layout, self._facts, self._dtype, self._static = layout, facts, dtype, static_length
        self._closed = torch.finfo(dtype).min
        self._by_position = facts.windowed and not layout.goes_on_by_column
        self._room: torch.Tensor | None = None
        self._position_room: torch.Tensor | None = None
        self._capacity = 0
        self._native = self._is_native()

    def _is_native(self) -> bool:
        """Whether None is the whole mask: every column is open, and the kernel builds nothing for it."""
        if self._static is not None or not self._layout.all_open:
            return False
        if self._facts.kernel == "sdpa":
            return not self._facts.windowed or len(self._facts.types) > 1
        return self._facts.kernel != "eager"

    def at(self, column: int) -> Any:
        """What to hand over as `attention_mask` when `column` columns are cached and one is new."""
        if self._native:
            if self._facts.kernel == "sdpa" and len(self._facts.types) > 1:
                return dict.fromkeys(self._facts.types)  # one a type: none of them needs one
            return None
        room = self._room_of(column + 1)
        if self._facts.flash or self._facts.kernel == "flex_attention":
            return room[:, : column + 1]
        if self._static is not None:
            room.select(3, column).zero_()
        masks = {name: self._for_type(name, room, column) for name in self._facts.types}
        return masks if len(masks) > 1 else masks[self._facts.types[0]]

    def _for_type(self, name: str, room: torch.Tensor, column: int) -> torch.Tensor:
        keys = column + 1
        window = self._facts.window if name == SLIDING else None
        if self._static is not None:
            size = self._static if window is None else min(window, self._static)
            first = 0 if window is None else max(keys - window, 0)
            return room[..., first : first + size]
        if window is None:
            return room[..., :keys]
        if not self._by_position:
            return room[..., max(keys - window, 0) : keys]
        positions = self._position_room
        assert positions is not None
        far = positions[:, :keys] <= positions[:, column : column + 1] - window
        return room[..., :keys].masked_fill(far[:, None, None], self._closed)

    def _room_of(self, columns: int) -> torch.Tensor:
        if self._room is None or columns > self._capacity:
            self._make_room(columns)
        return self._room  # type: ignore[return-value]

    def _make_room(self, columns: int) -> None:
        seen = self._layout.tensor(self._layout.open)
        rows, known = seen.shape
        capacity = max(columns + columns // 2, 64)
        if self._static is not None:
            capacity = self._static + (self._facts.window or 0)
        self._capacity = capacity
        if self._facts.flash or self._facts.kernel == "flex_attention":
            self._room = torch.ones((rows, capacity), dtype=torch.long, device=seen.device)
            self._room[:, :known] = seen
            return
        room = torch.zeros((rows, 1, 1, capacity), dtype=self._dtype, device=seen.device)
        room[:, 0, 0, :known].masked_fill_(~seen, self._closed)
        if self._static is not None:
            room[..., known:] = self._closed  # opened one by one: what is not yet written must not be seen
        self._room = room
        if self._by_position:
            ahead = torch.arange(capacity - known, device=seen.device)
            known_positions = self._layout.tensor(self._layout.position)
            following = self._layout.tensor(self._layout.next_position) + ahead
            self._position_room = torch.cat([known_positions, following], 1)
