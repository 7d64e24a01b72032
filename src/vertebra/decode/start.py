"""How a call begins: the model in its two halves, the prompt as a batch or as a state, and how far it can go.

Everything that can be refused is refused here, before anything is computed. It knows no sampling.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vertebra import log
from vertebra.decode.settings import ROWS, DecodeConfig
from vertebra.decode.state.column_facts import ColumnFacts
from vertebra.decode.state.compiled import compiled_step
from vertebra.decode.state.decoding import DecodeState
from vertebra.decode.state.language import Requested
from vertebra.decode.state.prefill import Keeping, begin
from vertebra.decode.state.ready import Ready, ready
from vertebra.errors import GenerationError, TooLongError
from vertebra.model.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Start(Ready):
    """A prompt that may be decoded."""

    layout: ColumnFacts
    state: DecodeState | None
    """Where it was computed already."""
    most: int
    """Tokens that may follow."""
    cut_short: bool
    """Fewer than were asked for: the model has no further positions."""
    began: float
    """When the call began."""


def start(model: Model, prompt: Any, settings: DecodeConfig) -> Start:
    """The prompt of a call, checked. `prompt`: a batch, sequences, or a `DecodeState`."""
    now = time.perf_counter()
    state = prompt if isinstance(prompt, DecodeState) else None
    if state is None:
        given = ready(model, prompt)
    else:
        given = Ready(model=model, language=state.language, batch=state.batch, layout=state.layout)
        if model.backbone is not state.model.backbone:
            raise GenerationError("the state was made with another model; give the model that it was made with")
        _check_state(settings)
    language, layout, name = given.language, given.layout, model.backbone.identifier
    assert layout is not None
    most = asked = settings.tokens_after(given.batch.length)
    if language.limit is not None:
        most = min(asked, language.limit - layout.next)
        if most < 1:
            raise TooLongError(
                f"the prompt fills all {language.limit} positions of `{name}`; shorten it, so that something can follow"
            )
    if most < asked and settings.max_new_tokens is not None:
        log.warn_once(
            f"{asked} tokens were requested, and `{name}` has positions for {most} after the prompt; rows that get there end "
            "with the reason `context`"
        )
    return Start(**{**vars(given), "layout": layout}, state=state, most=most, cut_short=most < asked, began=now)


def _check_state(settings: DecodeConfig) -> None:
    """A state has its cache and its rule already."""
    decided = [name for name in settings.differing if name in ROWS and ROWS[name].state]
    if decided:
        raise GenerationError(
            f"{', '.join(decided)}: the state decided that when it was made; give it to prefill() instead"
        )


def compute(begun: Start, settings: DecodeConfig, requested: Requested) -> DecodeState:
    """The state after the prompt, with what is requested of its last pass; one of its own, whatever was given."""
    if begun.state is not None:
        state = begun.state.fork()
        if state.logits is None or requested.hidden or requested.attentions:
            state.seen = None
            state.refresh(requested)
    else:
        anew = not settings.use_cache or _one_token(begun, settings)
        keeping = Keeping(
            cache=None if anew else settings.cache,
            max_length=settings.cache_length or begun.batch.length + begun.most,
            trimmable=settings.keep_state,
            chunk=settings.chunk,
            attend=settings.attend,
        )
        state = begin(begun, keeping, requested=requested)
        if settings.compile:
            _compile(state, settings)
    if settings.num_return_sequences > 1:
        state = _repeated(state, settings.num_return_sequences)
    return state


def _one_token(begun: Start, settings: DecodeConfig) -> bool:
    """Whether nothing will ever read a cache: one token of each prompt, and nobody who goes on from there."""
    plain = isinstance(settings.cache, str) and settings.chunk is None and settings.num_return_sequences == 1
    return begun.most == 1 and plain and not settings.keep_state and not settings.compile


def _compile(state: DecodeState, settings: DecodeConfig) -> None:
    if state.static_length is None:
        raise GenerationError("`compile` needs a static cache, whose tensors stay where they are; leave `cache` out")
    state.compiled = compiled_step(state.language, settings.compile)


def _repeated(state: DecodeState, times: int) -> DecodeState:
    """Every row so many times, side by side; the prompt is computed once."""
    rows = [row for row in range(state.rows) for _ in range(times)]
    new = state.fork(rows)
    new.passes = list(state.passes)
    new.seen = None if state.seen is None else state.seen.select(rows)
    return new


def _trains(model: Model) -> bool:
    """Whether anything that computes is in training mode: wrappers always say so, and compute nothing."""
    parts = (module for part in model.parts.values() for module in part.modules())
    return model.backbone.llm.training or any(module.training for module in parts)


@contextmanager
def eval_mode(model: Model) -> Iterator[None]:
    """Without dropout and checkpointing for as long as it lasts: for samples in the middle of a training run."""
    training = [module for module in model.modules() if module.training] if _trains(model) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
