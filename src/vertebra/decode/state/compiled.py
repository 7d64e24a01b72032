"""The decode step compiled, over a static cache; with CUDA graphs on a GPU. An option, never needed for being right.

The first call of a shape compiles, which takes from seconds to a minute, and later ones are faster for it. Where
nothing can compile, one message says so and the step runs as it is. It knows one pass of a `Language`, and no sampling.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

import torch

from vertebra import log
from vertebra.decode.state.language import Language, Requested, Seen

_RECOMPILES = 64
"""Shapes of one model, each compiled once."""


class CompiledStep:
    """`Language.run` for one new column a row, compiled."""

    def __init__(self, language: Language, backend: Any) -> None:
        self._language = weakref.proxy(language)
        self._on_gpu = language.device.type == "cuda"
        self._step: Callable[..., torch.Tensor] | None = None
        if language.head is not None:
            self._step = torch.compile(_step_of(language), backend=backend, **_options(self._on_gpu, backend))
        else:
            log.warn_once(
                f"`{language.backbone.identifier}` computes more behind its body than its head; its steps run uncompiled"
            )

    def run(
        self, inputs: dict[str, torch.Tensor], mask: Any, positions: torch.Tensor, cache: Any, requested: Requested
    ) -> Seen:
        """The same pass; what wants to see more than logits is shown by the model as it is."""
        rows = requested.rows
        weight, bias = (None, None) if rows is None else (rows.weight, rows.bias)
        shown = (
            requested.hidden or requested.attentions or not requested.logits or (rows is not None and weight is None)
        )
        if self._step is None or shown:
            return self._language.run(inputs, mask, positions, cache, requested)
        if self._on_gpu:
            torch.compiler.cudagraph_mark_step_begin()
        try:
            logits = self._step(inputs["input_ids"], mask, positions, cache, weight, bias)
        except _cannot_compile() as error:
            reason = str(error).strip().splitlines()[0]
            log.warn_once(
                f"the decode step cannot be compiled here ({type(error).__name__}: {reason}); it runs as it is"
            )
            self._step = None
            return self._language.run(inputs, mask, positions, cache, requested)
        if self._on_gpu:
            logits = logits.clone()  # the next replay writes over it
        return Seen(logits=logits, ids=None if rows is None else rows.ids)


def _options(on_gpu: bool, backend: Any) -> dict[str, Any]:
    """How to compile. What could change in the modules makes another `Language`, so that a step need not look at each."""
    # newer versions let one function have a limit of its own, so that many shapes of one model all compile
    limited = "recompile_limit" in inspect.signature(torch.compile).parameters
    options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    if on_gpu and backend == "inductor":
        options["triton.cudagraphs"] = True
    return {"options": options, **({"recompile_limit": _RECOMPILES} if limited else {})}


def _step_of(language: Language) -> Callable[..., torch.Tensor]:
    body, head = language.body, language.head
    assert head is not None

    def step(
        tokens: torch.Tensor, mask: Any, positions: torch.Tensor, cache: Any, weight: Any, bias: Any
    ) -> torch.Tensor:
        out = body(input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
        return head.logits(out.last_hidden_state[:, -1], weight, bias)

    return step


def _cannot_compile() -> tuple[type[BaseException], ...]:
    """What the compiler raises where it, or the compiler of C++ or Triton behind it, is missing or fails."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return TorchDynamoException, CppCompileError, InvalidCxxCompiler


def compiled_step(language: Language, backend: Any) -> CompiledStep:
    """The compiled step of a language model, made once."""
    name = "inductor" if backend is True else backend
    known = _known.setdefault(language, {})
    if name not in known:
        known[name] = CompiledStep(language, name)
    return known[name]


_known: weakref.WeakKeyDictionary[Language, dict[Any, CompiledStep]] = weakref.WeakKeyDictionary()
