"""Gradients reach everything that trains, with checkpointing on: outside a frozen model, in adapters, in the model.

    frozen   a projector's outputs enter as embeddings; every base weight is fixed
    LoRA     low-rank adapters beside every linear of every layer; the embeddings that enter need no gradient
    full     every weight trains, from ids and from embeddings

Gradients are looked at as they arrive and dropped at once, so that no second copy of the model is ever held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vertebra.checks.results import Measure, Skip
from vertebra.checks.subject import Subject

_RANK = 2
# fp16 gradients of a mean loss are near its smallest numbers
_LOSS_SCALE = {torch.float16: 1024.0}


def frozen(subject: Subject) -> Measure | Skip:
    """Nothing inside trains: a projector outside must still learn, and ids must still back-propagate."""
    return _unless_inference(subject, _frozen)


def lora(subject: Subject) -> Measure | Skip:
    """Only adapters train; the embeddings that enter come from a fixed encoder and carry no gradient."""
    return _unless_inference(subject, _lora)


def full(subject: Subject) -> Measure | Skip:
    """Everything trains."""
    return _unless_inference(subject, _full)


def _unless_inference(subject: Subject, measure: Any) -> Measure | Skip:
    backbone = subject.backbone
    if backbone.inference_mode:
        return Skip("built for inference; load it with inference_mode=False")
    if backbone.quantization is not None and measure is _full:
        return Skip("quantized weights do not train")
    backbone.train()
    backbone.enable_gradient_checkpointing()
    return measure(subject)


def _frozen(subject: Subject) -> Measure:
    backbone, ids = subject.backbone, subject.ids(subject.inside)
    backbone.requires_grad_(False)
    projector = nn.Linear(8, backbone.embedding_width, device=backbone.device, dtype=backbone.dtype)
    watched = {f"projector.{name}": parameter for name, parameter in projector.named_parameters()}
    slots = ids.shape[1] // 2
    features = torch.randn(1, slots, 8, device=backbone.device, dtype=backbone.dtype)
    with _watch(watched) as reached:
        embeds = backbone.embed_input_ids(ids).detach()
        embeds = torch.cat([embeds[:, :1], projector(features), embeds[:, 1 + slots :]], 1)
        _backward(backbone, {"inputs_embeds": embeds}, ids)
    entered: list[torch.Tensor] = []
    hook = backbone.llm.get_input_embeddings().register_forward_hook(lambda m, a, out: entered.append(out))
    try:
        with _unless_cut():
            _backward(backbone, {"input_ids": ids}, ids, watch=entered)
    finally:
        hook.remove()
    if any(out.grad is not None and bool(out.grad.any()) for out in entered):
        reached.add("the embedding of ids")
    return _measure([*watched, "the embedding of ids"], reached, "a projector and the inputs of a frozen model")


def _lora(subject: Subject) -> Measure:
    backbone, ids = subject.backbone, subject.ids(subject.inside)
    backbone.requires_grad_(False)
    with torch.no_grad():
        embeds = backbone.embed_input_ids(ids).detach()
    runs: list[dict[str, Any]] = [{"input_ids": ids}, {"inputs_embeds": embeds}]
    with _adapters(backbone) as adapters:
        everywhere = set(adapters)
        for inputs in runs:
            with _watch(adapters) as reached, _unless_cut():
                _backward(backbone, inputs, ids)
            everywhere &= reached
        return _measure(adapters, everywhere, "low-rank adapters")


def _full(subject: Subject) -> Measure:
    backbone, ids = subject.backbone, subject.ids(subject.inside)
    backbone.requires_grad_(True)
    parameters = dict(backbone.llm.named_parameters())
    everywhere = set(parameters)
    for name in ("input_ids", "inputs_embeds"):
        with _watch(parameters) as reached, _unless_cut():
            _backward(backbone, {name: ids if name == "input_ids" else backbone.embed_input_ids(ids)}, ids)
        everywhere &= reached
    return _measure(parameters, everywhere, "tensors of the model")


def _measure(expected: Any, reached: set[str], what: str) -> Measure:
    missed = [name for name in expected if name not in reached]
    faults = (f"none at {', '.join(missed[:3])}" + (" …" if len(missed) > 3 else ""),) if missed else ()
    return Measure(
        number=len(expected) - len(missed),
        relation="==",
        bound=len(expected),
        message=f"{what} that a gradient reached, checkpointing on",
        faults=faults,
    )


def _backward(
    backbone: Any, inputs: dict[str, torch.Tensor], labels: torch.Tensor, *, watch: Sequence[torch.Tensor] = ()
) -> None:
    loss = backbone(**inputs, labels=labels).loss
    for tensor in watch:
        if tensor.requires_grad:
            tensor.retain_grad()
    (loss * _LOSS_SCALE.get(backbone.dtype, 1.0)).backward()


@contextmanager
def _unless_cut() -> Iterator[None]:
    """A loss that depends on nothing that trains cannot be differentiated: then nothing is reached, and that is reported."""
    try:
        yield
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise


@contextmanager
def _watch(parameters: Mapping[str, nn.Parameter]) -> Iterator[set[str]]:
    """The names whose gradient came, finite and not all zero; the gradients themselves are dropped."""
    reached: set[str] = set()

    def note(name: str, parameter: torch.Tensor) -> None:
        grad = parameter.grad
        if grad is not None and bool(torch.isfinite(grad).all()) and bool(grad.any()):
            reached.add(name)
        parameter.grad = None

    handles = [
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: note(name, p))
        for name, parameter in parameters.items()
    ]
    try:
        yield reached
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _adapters(backbone: Any) -> Iterator[dict[str, nn.Parameter]]:
    """A low-rank path beside every linear of every layer, by hooks; gone after the block."""
    adapters: dict[str, nn.Parameter] = {}
    handles = []
    for name, module in backbone.layers.named_modules():
        width = _widths(module)
        if width is None:
            continue
        options = {"device": backbone.device, "dtype": backbone.dtype}
        down = nn.Parameter(torch.randn(_RANK, width[0], **options) / width[0] ** 0.5)
        up = nn.Parameter(torch.randn(width[1], _RANK, **options) * 0.1)
        adapters[f"{name}.down"], adapters[f"{name}.up"] = down, up

        def add(m: nn.Module, args: Any, out: Any, down: nn.Parameter = down, up: nn.Parameter = up) -> Any:
            return out + F.linear(F.linear(args[0], down), up)

        handles.append(module.register_forward_hook(add))
    try:
        yield adapters
    finally:
        for handle in handles:
            handle.remove()


def _widths(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a linear; GPT-2's `Conv1D` keeps its matrix the other way around, quantized ones say it themselves."""
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]
    if type(module).__name__ == "Conv1D":
        return int(module.weight.shape[0]), int(module.weight.shape[1])  # type: ignore[index]
    return None
