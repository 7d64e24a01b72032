"""A training step rehearsed on tensors without data: what is alive at its peak, for any model, precision and choice.

The model is built on the meta device and run with fake tensors, through the same head and loss as in training; every
storage is counted when it appears and when it goes. Nothing is allocated, so 7 B fits on a laptop. Memory that kernels
take inside and give back is not seen.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from vertebra.backbone.head import Head, head_held_back
from vertebra.backbone.head_loss import LossRule, head_loss


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Bytes of one process that holds everything."""

    weights: float
    trained: float
    """Weights that train: gradients are as large, and so is each of the two states of AdamW."""
    activations: float
    """Alive between forward and backward."""
    head: float
    """The rows of logits that are alive at once, with their gradients."""
    phases: tuple[float, ...]
    """The highest of what operations made, in the forward, in the head, and in either half of the backward."""
    layer: float
    """Weights of one decoder layer: what FSDP gathers at a time."""
    layer_trained: float
    rest: float
    """Weights that are in no layer: embedding, head, encoders, projectors. FSDP gathers them for the whole step."""
    parameters: float
    trained_parameters: float
    outside: float = 0
    """Parameters of encoders and projectors."""
    outside_trained: float = 0

    @property
    def peak(self) -> float:
        """At the step's highest point, without the optimizer's states."""
        return self.weights + max(self.phases)


def deeper(low: Rehearsal, high: Rehearsal, depths: tuple[int, int], depth: int) -> Rehearsal:
    """What a model of more layers takes, from two of fewer: each number by itself is a line."""
    share = (depth - depths[0]) / (depths[1] - depths[0])

    def at(a: float, b: float) -> float:
        return a + (b - a) * share

    made: dict[str, Any] = {
        field.name: at(getattr(low, field.name), getattr(high, field.name))
        for field in fields(Rehearsal)
        if field.name != "phases"
    }
    return Rehearsal(**made, phases=tuple(map(at, low.phases, high.phases)))


class Alive(TorchDispatchMode):
    """Counts the bytes of storages that operations make."""

    def __init__(self, known: Any) -> None:
        super().__init__()
        self.now = 0
        self.peaks: list[int] = [0]
        # a view of a weight is no new memory
        self._seen: dict[int, int] = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def begin(self) -> None:
        """A new phase, with a peak of its own."""
        self.peaks.append(self.now)

    def __torch_dispatch__(self, function: Any, kinds: Any, arguments: Any = (), options: Any = None) -> Any:
        if function is torch.ops.prim.device.default:  # two thirds of all calls, and fake tensors know it
            return arguments[0].fake_device
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
        self.peaks[-1] = max(self.peaks[-1], self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._seen.pop(key, 0)


def rehearse(
    model: Any,
    layers: Any,
    *,
    rows: int,
    length: int,
    supervised: float,
    bf16: bool,
    rule: LossRule | None = None,
    parts: Sequence[Any] = (),
    images: int = 1,
    whole: Any = None,
    keep_gradients: bool = True,
) -> Rehearsal:
    """One step of `rows` × `length` positions. `model`: a Hugging Face model on the meta device, set to train.

    `parts`: what makes embeddings of `images` items a row each, inside of `whole`. Without `keep_gradients` those of
    layers go as soon as they are there, as where shards are reduced.
    """
    whole = model if whole is None else whole
    counted = _counted(whole, layers, parts)
    output = Head(model)  # there are no values to show it on
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()
    with fake:
        _made_fake(whole)
        if not keep_gradients:
            for parameter in (p for layer in layers for p in layer.parameters()):
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(_dropped)
        ids = torch.zeros((rows, length), dtype=torch.long)
        pixels = [_items(part, rows * images) for part in parts]
        count = max(1, int(rows * (length - 1) * supervised))
        targets, weight = torch.zeros(count, dtype=torch.long), torch.ones(count)
        with Alive([*whole.parameters(), *whole.buffers()]) as alive, autocast:
            _second_half(layers, alive)
            with head_held_back(model) as seen:
                _run(model, ids, parts, pixels)
            hidden = seen.pop()
            chosen = hidden.flatten(0, 1)[:count]
            del hidden
            activations = alive.now
            matrix, bias = output.tensors()
            alive.begin()
            loss = head_loss(chosen, matrix, bias, targets, weight, rule=rule, form=output.form)
            head = alive.peaks[-1] - activations
            alive.begin()
            loss.backward()
    phases = tuple(float(peak) for peak in (*alive.peaks, alive.peaks[-1])[:4])
    return Rehearsal(**counted, activations=activations, head=head, phases=phases)


def _counted(whole: Any, layers: Any, parts: Sequence[Any]) -> dict[str, float]:
    """What weights alone tell."""
    every = list(whole.parameters())
    trained = [p for p in every if p.requires_grad]
    outside = [p for part in parts for p in part.parameters()]
    largest = max(layers, key=lambda layer: sum(_bytes(p) for p in layer.parameters()))
    weights = sum(_bytes(p) for p in every)
    return {
        "weights": weights,
        "trained": sum(_bytes(p) for p in trained),
        "layer": sum(_bytes(p) for p in largest.parameters()),
        "layer_trained": sum(_bytes(p) for p in largest.parameters() if p.requires_grad),
        "rest": weights - sum(_bytes(p) for layer in layers for p in layer.parameters()),
        "parameters": sum(p.numel() for p in every),
        "trained_parameters": sum(p.numel() for p in trained),
        "outside": sum(p.numel() for p in outside),
        "outside_trained": sum(p.numel() for p in outside if p.requires_grad),
    }


def _second_half(layers: Any, alive: Alive) -> None:
    """Begin a phase where the backward has come to the middle: with many layers its peak is at one end or the other."""

    def watch(layer: Any, inputs: Any, out: Any) -> None:
        hidden = out[0] if isinstance(out, tuple) else out
        if hidden.requires_grad and not torch._C._current_graph_task_id() >= 0:  # not when it is computed again
            hidden.register_hook(lambda gradient: alive.begin())

    layers[len(layers) // 2 - 1].register_forward_hook(watch)


def _dropped(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _items(part: Any, count: int) -> torch.Tensor:
    """Raw items of a part, as many as a batch has."""
    generator = torch.Generator()
    with unset_fake_temporarily():
        one = part.encoder.sample(1, generator)
    return torch.zeros((count, *one.shape[1:]), dtype=one.dtype)


def _run(model: Any, ids: torch.Tensor, parts: Sequence[Any], items: Sequence[torch.Tensor]) -> None:
    """A forward, with outside embeddings where there are any: each row's stand one after the other."""
    if not parts:
        model(input_ids=ids, use_cache=False)
        return
    embeds = model.get_input_embeddings()(ids)
    start = 0
    for part, values in zip(parts, items, strict=True):
        made = part(values).reshape(len(ids), -1, embeds.shape[-1]).to(embeds.dtype)
        where = torch.arange(start, start + made.shape[1])
        rows = torch.arange(len(ids))[:, None].expand(-1, len(where)).reshape(-1)
        embeds = embeds.index_put((rows, where.repeat(len(ids))), made.flatten(0, 1))
        start += made.shape[1]
    model(inputs_embeds=embeds, use_cache=False)


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
