"""Products with a model's matrices on a CPU: by torch's own linear, by oneDNN, or by oneDNN with packed matrices.

Which is fastest depends on the machine and the number type (on an AMD, MKL multiplies float32 at half of the speed of
oneDNN, and packed bfloat16 matrices are read twice as fast), so each is tried on matrices of the model itself, and must
be faster by far to be taken. Torch's and oneDNN's read the modules' own weights; packed ones are a second copy, made up
to a bound, and each knows by a checksum whether the weights it was made of have changed since.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Way = Literal["torch", "onednn", "packed"]
_GAIN: dict[Way, float] = {"onednn": 1.2, "packed": 1.3}
"""How many times faster than every simpler way one must be: near parity, noise must not choose."""
MERGED_BYTES = 32 << 20
"""Larger matrices are products of their own: merging them would copy them and gain nothing."""
PACKED_BYTES = 2 << 30
"""A model with more in its matrices is not packed."""
_WORTH_BYTES = 8 << 20
"""A model with less in its matrices runs out of the processor's cache, and is not tried."""
_TRIED_BYTES, _ROUNDS = 16 << 20, 7
_TYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class Product:
    """Linears that read the same input, as one product where they are merged."""

    parts: tuple[nn.Linear, ...]
    weights: tuple[torch.Tensor, ...]
    """What is multiplied: one merged matrix, or each part's."""
    biases: tuple[torch.Tensor | None, ...]
    way: Way
    packed: tuple[torch.Tensor, ...]
    places: tuple[int, ...]
    """Where the parts' weights lay when this was made."""
    marks: tuple[torch.Tensor, ...]
    """What their rows summed up to when they were packed."""

    @classmethod
    def of(cls, *parts: nn.Linear, way: Way = "torch") -> Product:
        weights: tuple[torch.Tensor, ...] = tuple(part.weight for part in parts)
        biases: tuple[torch.Tensor | None, ...] = tuple(part.bias for part in parts)
        if len(parts) > 1 and num_bytes(weights) <= MERGED_BYTES:
            weights = (_merged([part.weight for part in parts]),)
            biases = (None if parts[0].bias is None else _merged([part.bias for part in parts]),)
        packed = tuple(map(_pack, weights)) if way == "packed" else ()
        marks = tuple(map(_mark, weights)) if packed else ()
        return cls(parts, weights, biases, way, packed, _places(parts), marks)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.way == "torch":
            made = [F.linear(x, weight, bias) for weight, bias in zip(self.weights, self.biases, strict=True)]
        else:
            matrices = self.packed or self.weights
            made = [_onednn(x, matrix, bias) for matrix, bias in zip(matrices, self.biases, strict=True)]
        return made[0] if len(made) == 1 else torch.cat(made, -1)

    def holds(self) -> bool:
        """Whether the parts still have the weights that this was made of."""
        return _places(self.parts) == self.places

    def is_fresh(self) -> bool:
        """Whether what was packed is what the parts hold now: every row is read, at the speed of memory."""
        return all(torch.equal(_mark(weight), mark) for weight, mark in zip(self.weights, self.marks, strict=False))


def _places(parts: tuple[nn.Linear, ...]) -> tuple[int, ...]:
    return tuple(part.weight.data_ptr() for part in parts)


def num_bytes(weights: Sequence[torch.Tensor]) -> int:
    return sum(weight.numel() * weight.element_size() for weight in weights)


def _merged(weights: list[torch.Tensor]) -> torch.Tensor:
    """One tensor with these below each other; each becomes a view of its rows."""
    whole = torch.cat([weight.data for weight in weights])
    start = 0
    for weight in weights:
        weight.data = whole[start : start + len(weight)]
        start += len(weight)
    return whole


def _mark(weight: torch.Tensor) -> torch.Tensor:
    """A checksum of every row."""
    return weight.view(torch.int64).sum(1)


def _pack(weight: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, 1)


def _onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def fastest(weights: Sequence[torch.Tensor], total: int) -> Way:
    """The fastest way to multiply matrices like these, a few of a model that holds `total` bytes of them."""
    if total < _WORTH_BYTES:
        return "torch"
    some = [weights[0]]
    for weight in weights[1:]:  # several, since one alone would stay in the processor's nearest cache
        if num_bytes(some) < _TRIED_BYTES:
            some.append(weight)
    ways: dict[Way, tuple[Callable[..., torch.Tensor], Sequence[torch.Tensor]]] = {"torch": (F.linear, some)}
    for way in _possible(some, total):
        ways[way] = (_onednn, list(map(_pack, some)) if way == "packed" else some)
    taken = _seconds(ways)
    best: Way = "torch"
    for way, gain in _GAIN.items():
        if way in taken and taken[way] * gain < taken[best]:
            best = way
    return best


def way_of(llm: nn.Module) -> Way:
    """The fastest way to multiply with a model's matrices where it is."""
    weights = [module.weight for module in llm.modules() if type(module) is nn.Linear and is_plain(module.weight)]
    if not weights or weights[0].device.type != "cpu":
        return "torch"
    by_shape: dict[torch.Size, list[torch.Tensor]] = {}
    for weight in weights:
        by_shape.setdefault(weight.shape, []).append(weight)
    return fastest(max(by_shape.values(), key=num_bytes), num_bytes(weights))


class _ByOneDnn(TorchFunctionMode):
    """Inside, linears in float32 are oneDNN's, whichever module asks for them; it knows no gradients."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs and _is_ours(*args):
            return _onednn(*args)
        return func(*args, **(kwargs or {}))


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is numbers and no more: quantizers put tensors of their own kinds into ordinary linears."""
    return type(tensor) in (torch.Tensor, nn.Parameter)


def _is_ours(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
    return (
        is_plain(x)
        and is_plain(weight)
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and x.device.type == "cpu"
    )


def long_passes(way: Callable[[], Way], dtype: torch.dtype) -> AbstractContextManager[Any]:
    """How to run a pass of many columns by a model's own modules. In 16 bits torch's linear is oneDNN's anyway, and the
    first token need not wait until the ways are tried."""
    if dtype != torch.float32 or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return nullcontext()
    return nullcontext() if way() == "torch" else _ByOneDnn()


def _possible(weights: Sequence[torch.Tensor], total: int) -> tuple[Way, ...]:
    """What oneDNN can do with them here, the simplest first."""
    first = weights[0]
    if first.dtype not in _TYPES or not torch.backends.mkldnn.is_available():
        return ()
    try:
        _onednn(first.new_ones(1, first.shape[1]), _pack(first))
    except (AttributeError, RuntimeError):  # the type is not supported by this processor
        return ()
    rows_can_be_marked = first.shape[1] * first.element_size() % 8 == 0
    return ("onednn", "packed") if total <= PACKED_BYTES and rows_can_be_marked else ("onednn",)


def _seconds(ways: dict[Way, tuple[Callable[..., torch.Tensor], Sequence[torch.Tensor]]]) -> dict[Way, float]:
    """Of the processor, the best of some rounds; all take turns, so that a slow moment meets each."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(_ROUNDS):
        for way, (multiply, matrices) in ways.items():
            x = torch.ones(1, matrices[0].shape[1], dtype=matrices[0].dtype)
            start = time.process_time()
            for matrix in matrices:
                multiply(x, matrix)
            best[way] = min(best[way], time.process_time() - start)
    return best
