"""`prefill`: from a model and a batch to a `DecodeState`, with everything that can be wrong found out at once.

A cache may be given: the columns that it holds are not computed again. It knows no sampling.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from vertebra.decode.state import cache as caches
from vertebra.decode.state.checks import check_cache, check_prompt
from vertebra.decode.state.column_facts import ColumnFacts
from vertebra.decode.state.columns import as_batch
from vertebra.decode.state.decoding import DecodeState
from vertebra.decode.state.language import LAST, Language, Seen, Want, language_of
from vertebra.errors import ConfigError, GenerationError, UnknownNameError
from vertebra.model.model import Model, model_of
from vertebra.sequence.batch import Batch
from vertebra.sequence.masks import Attend

CacheKind = Literal["dynamic", "static"]
_CACHES = ("dynamic", "static")


def prefill(
    model: Any,
    batch: Any,
    *,
    cache: Any = "dynamic",
    max_length: int | None = None,
    trimmable: bool = True,
    chunk: int | None = None,
    upto: int | None = None,
    attend: Attend | None = None,
    want: Want = LAST,
) -> DecodeState:
    """Compute the prompts of a batch and keep them.

    `batch`: a `Batch`, a `TokenSequence` or a list of them. `cache`: `dynamic`, `static` (with `max_length` columns in
    all), or a transformers cache that holds the first columns. `trimmable`: keep what windowed layers would drop.
    `chunk`: at most so many columns in a pass. `upto`: only the first columns; `advance()` computes the rest.
    """
    model = model_of(model)
    language = language_of(model.backbone)
    batch, layout = as_batch(batch, model.backbone, language.device)
    check_prompt(batch, layout, language)
    if chunk is not None and chunk < 1:
        raise ConfigError(f"chunk is {chunk}; expected 1 or more columns in a pass")
    return begin(
        model,
        language,
        batch,
        layout,
        cache,
        max_length=max_length,
        trimmable=trimmable,
        chunk=chunk,
        upto=upto,
        attend=attend,
        want=want,
    )


def begin(
    model: Model,
    language: Language,
    batch: Batch,
    layout: ColumnFacts,
    cache: Any,
    *,
    max_length: int | None,
    trimmable: bool,
    chunk: int | None = None,
    upto: int | None = None,
    attend: Attend | None = None,
    want: Want = LAST,
) -> DecodeState:
    """`prefill` of a batch that was checked."""
    stop = batch.length if upto is None else upto
    if not 0 < stop <= batch.length:
        raise GenerationError(f"upto is {upto}; expected 1 to {batch.length}, the columns of the batch")
    if want.attentions and chunk is not None and chunk < stop:
        raise ConfigError("attentions of a prompt in chunks have no common shape; leave `chunk` out, or the attentions")
    state = _empty(model, language, batch, layout, cache, max_length=max_length, trimmable=trimmable, attend=attend)
    shown: list[Seen] = []
    while state.length < stop:
        last = stop if chunk is None else min(stop, state.length + chunk)
        state.advance(last, want=want if last == batch.length else want.without_logits())
        if state.seen is not None:
            shown.append(state.seen)
    if want.hidden and len(shown) > 1:
        state.seen = Seen.joined(shown)
    return state


def _empty(
    model: Model,
    language: Language,
    batch: Batch,
    layout: ColumnFacts,
    cache: Any,
    *,
    max_length: int | None,
    trimmable: bool,
    attend: Attend | None,
) -> DecodeState:
    """A state with nothing computed but what the cache holds."""
    config = language.llm.config
    static_length = None
    if isinstance(cache, str):
        if cache not in _CACHES:
            raise UnknownNameError("cache", cache, _CACHES, hint="Or give a transformers cache.")
        if cache == "static":
            if max_length is None or max_length < batch.length:
                raise GenerationError(
                    f"a static cache has a fixed length: give max_length, {batch.length} columns or more; it is {max_length}"
                )
            made, static_length = caches.static(config, max_length), max_length
        else:
            room = max(max_length or 0, batch.length + caches.ROOM)
            made = caches.growing(language.layers, config, trimmable=trimmable, room=room)
        return DecodeState(model, language, batch, made, layout=layout, static_length=static_length, attend=attend)
    check_cache(cache, batch, language)
    made = caches.adopt(cache, trimmable=trimmable)
    length = int(made.get_seq_length())
    if caches.is_static(made):
        static_length = caches.static_length(made, window=language.facts.window, limit=language.limit)
    if length == batch.length:  # nothing is left that could predict: the last column is computed again
        with torch.inference_mode():
            caches.trim(made, length - 1)
        length -= 1
    return DecodeState(
        model, language, batch, made, layout=layout, length=length, static_length=static_length, attend=attend
    )
