"""What a server holds of a folder that others may write to while it serves: its own copy of the weights, and how it knew the
folder.

Weights that were read from a file are pages of that file until somebody writes to them. A folder that is renamed into place,
as ours are, leaves them as they are; a file that is overwritten where it lies changes them under a running model, or ends
the process. A server lives long enough for either, so it takes them into memory of its own.
"""

from __future__ import annotations

from pathlib import Path

import torch

from vertebra.backbone.source import left_by_run
from vertebra.folders import state_of

_PLAIN = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
"""Others (quantized ones) were computed, and are pages of no file."""


_LINE = 64
"""Bytes that are summed at once: weights that lie otherwise in them give other last bits than the same policy in process."""


_WIDEST = 8
"""Bytes of the widest number: a place that no number could begin at is no place."""


def own_weights(model: torch.nn.Module) -> None:
    """Copy what lies in the memory of the processor, each storage once: what was shared stays shared, bit for bit."""
    copies: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.device.type != "cpu" or type(tensor) not in _PLAIN:
                continue
            old = tensor.untyped_storage()
            if old.data_ptr() not in copies:
                copies[old.data_ptr()] = _copied(old)
            copy = copies[old.data_ptr()]
            at = tensor.storage_offset() + copy.storage_offset() // tensor.itemsize
            tensor.set_(copy.untyped_storage(), at, tensor.shape, tensor.stride())


def _copied(old: torch.UntypedStorage) -> torch.Tensor:
    """The bytes of a storage in memory of their own, as far from the beginning of a line as they were."""
    bytes_of = torch.empty(0, dtype=torch.uint8).set_(old)
    room = torch.empty(old.nbytes() + _LINE, dtype=torch.uint8)
    shift = (old.data_ptr() - room.data_ptr()) % _LINE // _WIDEST * _WIDEST
    made = room[shift : shift + old.nbytes()]
    made.copy_(bytes_of)
    return made


class Folder:
    """The folder of a name, as it was when its model was loaded; none where a name is an id, or a file."""

    def __init__(self, name: str) -> None:
        here = Path(left_by_run(name)).expanduser()
        self.path = here if here.is_dir() else None
        self.state = self._now()

    def _now(self) -> str | None:
        return state_of(self.path) if self.path is not None and self.path.is_dir() else None

    @property
    def changed(self) -> bool:
        """Whether its files are others than those that were loaded."""
        return self._now() != self.state
