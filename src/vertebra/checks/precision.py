"""The model in 16 bits beside itself in 32: real weights make activations that 16 bits hold coarsely, or not at all.

A few channels of a trained model carry numbers a thousand times as large as the others (SmolLM2-135M: 24,000 from its
twelfth layer on). float16 ends at 65,504; bfloat16 has steps of 128 there. Random tiny weights have nothing of the kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from vertebra.checks.results import Measure, Skip
from vertebra.checks.subject import Subject, difference

# Bounds on the largest difference of two logits, in units of the largest, between a number type and float32.
# Measured: bf16 1.7e-2 on the tiny families and 5.0e-2 on SmolLM2-135M, fp16 2.3e-3 and 2.2e-3.
BOUND = {torch.bfloat16: 1e-1, torch.float16: 1e-2}


def half(subject: Subject) -> Measure | Skip:
    """Logits in the model's 16-bit type and in float32, whichever of the two it was loaded in."""
    backbone = subject.backbone
    if backbone.quantization is not None:
        return Skip("quantized weights have no other type")
    low = backbone.dtype if backbone.dtype in BOUND else backbone.half_precision_dtype
    peaks: dict[str, float] = {}
    high_logits, low_logits = (_logits(subject, dtype, peaks) for dtype in (torch.float32, low))
    peak = max(peaks, key=lambda name: peaks[name])
    largest, name = peaks[peak], str(low).removeprefix("torch.")
    share = largest / torch.finfo(torch.float16).max
    beside = f", {share:.0%} of float16's largest number" if share > 0.01 else ""
    return Measure(
        number=difference(low_logits, high_logits),
        relation="<=",
        bound=BOUND[low],
        message=f"{name} beside float32; the largest activation is {largest:,.0f}, of `{peak}`{beside}",
    )


@torch.no_grad()
def _logits(subject: Subject, dtype: torch.dtype, peaks: dict[str, float]) -> torch.Tensor:
    """The logits in that type; in float32 also the largest value that each module gives."""
    backbone = subject.backbone.eval()
    with computing_in(backbone.llm, dtype), _watching(backbone.llm, peaks if dtype == torch.float32 else {}):
        return backbone(input_ids=subject.ids(subject.inside), use_cache=False).logits


@contextmanager
def computing_in(llm: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Inside the block every module has its own weights in another type while it runs, so that only one module's copy
    is ever held. What enters is ids: all that follows has the type of the embedding. Buffers stay, the angles of rotary
    positions above all."""
    handles = []
    for module in llm.modules():
        own = {name: p for name, p in module._parameters.items() if p is not None and p.dtype != dtype}
        if own:
            handles += _cast_while_running(module, own, dtype)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _cast_while_running(module: nn.Module, own: dict[str, nn.Parameter], dtype: torch.dtype) -> list[Any]:
    def cast(module: nn.Module, args: Any) -> None:
        for name, parameter in own.items():
            module._parameters[name] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)

    def back(module: nn.Module, args: Any, out: Any) -> None:
        module._parameters.update(own)

    return [module.register_forward_pre_hook(cast), module.register_forward_hook(back, always_call=True)]


@contextmanager
def _watching(llm: nn.Module, peaks: dict[str, float]) -> Iterator[None]:
    handles = [
        module.register_forward_hook(lambda m, a, out, name=name: _note(peaks, name, out))
        for name, module in llm.named_modules()
        if name and module is not llm.get_output_embeddings()  # type: ignore[operator]
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _note(peaks: dict[str, float], name: str, out: Any) -> None:
    out = out[0] if isinstance(out, tuple) else out
    if torch.is_tensor(out) and out.is_floating_point():
        peaks[name] = float(out.abs().max())
