"""A batch on its way from a worker: all of its tensors end to end in one, since each that is sent alone costs its own exchange.

    worker    {"input_ids": ▢, "features": {"image": ▢ …}}  →  Parcel(▢▢▢▢…, where each lies)
    here      the same tree, whose tensors look into that one

A batch of twenty tensors took ten milliseconds to receive, of whatever size they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils.data import get_worker_info

_ALIGNED = 64
"""Bytes: where a tensor may begin, for any type and for whole lines of a processor's cache."""


class _At(NamedTuple):
    """Where a tensor lies."""

    start: int
    shape: torch.Size
    dtype: torch.dtype


class Parcel:
    """What is sent: `content` [bytes], and the tree with places instead of tensors."""

    def __init__(self, content: torch.Tensor, tree: Any) -> None:
        self.content, self.tree = content, tree

    def pin_memory(self) -> Parcel:
        """In page-locked memory, at one stroke (torch's loader calls this)."""
        return Parcel(self.content.pin_memory(), self.tree)

    def opened(self) -> Any:
        return _map(self.tree, _At, self._tensor)

    def _tensor(self, at: _At) -> torch.Tensor:
        size = math.prod(at.shape) * at.dtype.itemsize
        return self.content[at.start : at.start + size].view(at.dtype).view(at.shape)


def packed(tree: Any) -> Parcel:
    """The parcel of anything with plain tensors in it; those of other kinds are sent as they are."""
    parts: list[torch.Tensor] = []
    places, total = [], 0

    def place(tensor: torch.Tensor) -> Any:
        nonlocal total
        if type(tensor) is not torch.Tensor or tensor.layout != torch.strided or tensor.device.type != "cpu":
            return tensor
        part = tensor.detach().contiguous().view(-1)
        parts.append(part.view(torch.uint8) if part.numel() else part.new_empty(0, dtype=torch.uint8))
        at = _At(total, tensor.shape, tensor.dtype)
        places.append(total)
        total += -(-len(parts[-1]) // _ALIGNED) * _ALIGNED
        return at

    left = _map(tree, torch.Tensor, place)
    content = torch.zeros(total, dtype=torch.uint8)
    for start, part in zip(places, parts, strict=True):
        content[start : start + len(part)] = part
    return Parcel(content, left)


def sent(made: Any) -> Any:
    """What a loader's process makes, as it leaves it; where it is the one that trains, as it is."""
    return made if get_worker_info() is None else packed(made)


def received(made: Any) -> Any:
    return made.opened() if isinstance(made, Parcel) else made


def _map(tree: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """The tree with every thing of a kind changed; dicts, lists and tuples keep their types."""
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, dict):
        return type(tree)({name: _map(value, kind, change) for name, value in tree.items()})
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_map(value, kind, change) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(_map(value, kind, change) for value in tree)
    return tree
