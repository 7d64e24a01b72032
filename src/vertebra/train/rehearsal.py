"""A training step rehearsed on tensors without data: what is alive at its peak, for any model, precision and choice.

The model is built on the meta device and run with fake tensors, through the same head and loss as in training; every
storage is counted when it appears and when it goes. Nothing is allocated, so 7 B fits on a laptop. Memory that kernels
take inside and give back is not seen.
"""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from vertebra.train.head import LossRule, head_loss
from vertebra.train.learner import head_held_back, head_rule, head_tensors


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Bytes of one process that holds everything."""

    weights: int
    trained: int
    """Weights that train: gradients are as large, and so is each of the two states of AdamW."""
    activations: int
    """Alive between forward and backward."""
    head: int
    """The rows of logits that are alive at once, with their gradients."""
    peak: int
    """At the step's highest point, without the optimizer's states."""
    layer: int
    """Weights of one decoder layer: what FSDP gathers at a time."""
    parameters: int
    trained_parameters: int


class Alive(TorchDispatchMode):
    """Counts the bytes of storages that operations make."""

    def __init__(self, known: Any) -> None:
        super().__init__()
        self.now = self.peak = 0
        # a view of a weight is no new memory
        self._seen: dict[int, int] = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, function: Any, kinds: Any, arguments: Any = (), options: Any = None) -> Any:
        out = function(*arguments, **(options or {}))
        for value in tree_flatten(out)[0]:
            if isinstance(value, torch.Tensor):
                self._see(value.untyped_storage())
        return out

    def _see(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._seen.pop(key, 0)


def rehearse(
    model: Any, layers: Any, *, rows: int, length: int, supervised: float, bf16: bool, rule: LossRule | None = None
) -> Rehearsal:
    """One step of `rows` × `length` positions. `model`: a Hugging Face model on the meta device, set to train."""
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = sum(_bytes(p) for p in model.parameters())
    head_of = head_rule(model)  # while it is on meta: there is nothing to show it on
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()
    with fake:
        _made_fake(model)
        ids = torch.zeros((rows, length), dtype=torch.long)
        count = max(1, int(rows * (length - 1) * supervised))
        targets, weight = torch.zeros(count, dtype=torch.long), torch.ones(count)
        with Alive([*model.parameters(), *model.buffers()]) as alive, autocast:
            with head_held_back(model) as seen:
                model(input_ids=ids, use_cache=False)
            hidden = seen.pop()
            chosen = hidden.flatten(0, 1)[:count]
            del hidden
            activations = alive.now
            matrix, bias = head_tensors(model.get_output_embeddings())
            alive.peak = alive.now
            loss = head_loss(chosen, matrix, bias, targets, weight, rule=rule, head=head_of)
            head = alive.peak - activations
            loss.backward()
            peak = alive.peak
    return Rehearsal(
        weights=weights,
        trained=sum(_bytes(p) for p in trained),
        activations=activations,
        head=head,
        peak=weights + peak,
        layer=max(sum(_bytes(p) for p in layer.parameters()) for layer in layers),
        parameters=sum(p.numel() for p in model.parameters()),
        trained_parameters=sum(p.numel() for p in trained),
    )


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _made_fake(model: torch.nn.Module) -> None:
    """Parameters and buffers as fake tensors of the CPU, ties kept."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                if id(parameter) not in made:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                    made[id(parameter)] = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
