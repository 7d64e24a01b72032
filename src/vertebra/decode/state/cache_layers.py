"""Cache layers that grow in place, and can be forked and trimmed.

    RoomLayer     one buffer with room to grow: a step writes one column, where the library's copies all of them
    PassingLayer  keeps nothing, and hands out what it is given
    WindowLayer   the same for a sliding window: hands out the last `window - 1` keys and the new ones, and keeps
                  either all that came before (so that it can be trimmed) or no more than the window needs

A fork shares the buffer and copies it at its first own write. Columns are [B, heads, columns, width]. This module
knows the library's layer interface, and neither masks nor tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from vertebra.errors import GenerationError

ROOM = 64
"""Columns of a new buffer, at least."""


class RoomLayer(DynamicLayer):
    """Keys and values of one layer in buffers that have room for more columns."""

    def __init__(self, room: int = ROOM) -> None:
        super().__init__()
        self.room = room
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None
        self._view: torch.Tensor | None = None  # `keys` as we left it: another object means somebody replaced it
        self._shared = 0  # columns that a fork sees too, which must not be written over

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.hold(key_states[:, :, :0], value_states[:, :, :0])

    def hold(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Begin with these columns; they are copied before the first write."""
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    @property
    def columns(self) -> int:
        return self.keys.shape[2] if self.is_initialized else 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        if not self._may_write(start, end):
            start, end = self._move(key_states, value_states)
        keys, values = self._buffers  # type: ignore[misc]
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        self._view = self.keys
        return self.keys, self.values

    def _may_write(self, start: int, end: int) -> bool:
        if self._buffers is None or self.keys is not self._view:
            return False
        keys = self._buffers[0]
        # a tensor made under inference_mode cannot be written outside of it
        writable = not keys.is_inference() or torch.is_inference_mode_enabled()
        return writable and start >= self._shared and end <= keys.shape[2]

    def _needed(self) -> int:
        """How many of the last columns must survive a move."""
        return self.columns

    def _move(self, key_states: torch.Tensor, value_states: torch.Tensor) -> tuple[int, int]:
        """Into new buffers with room; the columns at which the new ones begin and end there."""
        kept = self._needed()
        end = kept + key_states.shape[2]
        columns = max(self.room, end + kept // 2 + 8)
        buffers = []
        for old, new in ((self.keys, key_states), (self.values, value_states)):
            buffer = new.new_empty((new.shape[0], new.shape[1], columns, new.shape[3]))
            if kept:
                buffer[:, :, :kept] = old[:, :, old.shape[2] - kept :]
            buffers.append(buffer)
        self._buffers, self._shared = (buffers[0], buffers[1]), 0
        return kept, end

    def check_keep(self, length: int) -> None:
        """Raise unless `keep(length)` is possible."""

    def keep(self, length: int) -> None:
        """Only the first `length` positions stay."""
        self._cut(length)

    def _cut(self, columns: int) -> None:
        if self.is_initialized:
            owned = self.keys is self._view
            self.keys, self.values = self.keys[:, :, :columns], self.values[:, :, :columns]
            self._view = self.keys if owned else None

    def crop(self, tokens_to_remove: int) -> None:
        """The library's name for `keep`; it says how many go, as a negative number."""
        length = self.get_seq_length() - abs(tokens_to_remove)
        self.check_keep(length)
        self.keep(length)

    def reset(self) -> None:
        self.keys = self.values = None  # type: ignore[assignment]
        self._buffers = self._view = None
        self.is_initialized, self._shared = False, 0

    def twin(self) -> RoomLayer:
        """An empty layer of the same kind."""
        return RoomLayer(self.room)

    def fork(self, rows: torch.Tensor | None) -> RoomLayer:
        """Another layer with these rows (None: all); columns are shared until one of the two writes over them."""
        new = self.twin()
        if not self.is_initialized:
            return new
        if rows is None:
            new.hold(self.keys, self.values)
            self._shared = max(self._shared, self.columns)
        elif self.keys.shape[0] == 1:
            # one row, repeated: no copy before the first write
            new.hold(self.keys.expand(len(rows), -1, -1, -1), self.values.expand(len(rows), -1, -1, -1))
            self._shared = max(self._shared, self.columns)
        else:
            new.hold(self.keys[rows], self.values[rows])
        return new

    def num_bytes(self) -> int:
        """What the layer holds, unused room counted."""
        held = self._buffers or ((self.keys, self.values) if self.is_initialized else ())
        return sum(tensor.numel() * tensor.element_size() for tensor in held)


class PassingLayer(DynamicLayer):
    """Keeps nothing: for a pass after which nobody asks. With a cache in hand the library skips its search for packed rows."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return key_states, value_states

    def get_seq_length(self) -> int:
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0


class WindowLayer(RoomLayer):
    """A layer that sees `sliding_window` positions, its own counted."""

    is_sliding = True

    def __init__(self, sliding_window: int, *, record_past: bool = False, room: int = ROOM) -> None:
        super().__init__(room)
        self.sliding_window = sliding_window
        self.cumulative_length = 0
        self.record_past = record_past
        self.whole = False
        """Hand out every key, for masks that count positions and not columns."""

    def activate_past_recording(self) -> None:
        self.record_past = True

    @property
    def dropped(self) -> int:
        """How many of the first positions are gone."""
        return self.cumulative_length - self.columns

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = super().update(key_states, value_states)
        self.cumulative_length += key_states.shape[2]
        if self.whole:
            return keys, values
        seen = self.sliding_window - 1 + key_states.shape[2]
        return keys[:, :, -seen:], values[:, :, -seen:]

    def _needed(self) -> int:
        return self.columns if self.record_past else min(self.columns, self.sliding_window - 1)

    def get_seq_length(self) -> int:
        return self.cumulative_length

    def get_max_length(self) -> int:
        return self.sliding_window

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        if self.whole:
            return self.cumulative_length + query_length, 0
        first = max(self.cumulative_length - self.sliding_window + 1, 0)
        return self.cumulative_length - first + query_length, first

    def check_keep(self, length: int) -> None:
        first_needed = max(length - self.sliding_window + 1, 0)
        if length < self.cumulative_length and self.dropped > first_needed:
            raise GenerationError(
                f"a layer has a window of {self.sliding_window} and dropped its first {self.dropped} positions; "
                f"trimmed to {length} it would need them from {first_needed} on. Make the state with "
                "prefill(…, trimmable=True), which keeps them"
            )

    def keep(self, length: int) -> None:
        self._cut(length - self.dropped)
        self.cumulative_length = min(length, self.cumulative_length)

    def hand_out(self, *, whole: bool) -> None:
        """All keys, or those of the window."""
        if whole and self.dropped:
            raise GenerationError(
                f"padding inside the rows needs every position before a window of {self.sliding_window}, and the cache "
                f"dropped the first {self.dropped}. Make the state with prefill(…, trimmable=True), which keeps them"
            )
        self.whole = whole
        self.record_past = self.record_past or whole

    def reset(self) -> None:
        super().reset()
        self.cumulative_length = 0

    def twin(self) -> WindowLayer:
        new = WindowLayer(self.sliding_window, record_past=self.record_past, room=self.room)
        new.cumulative_length, new.whole = self.cumulative_length, self.whole
        return new
