"""`prefill`: from a model and a batch to a `DecodeState`, with everything that can be wrong found out at once.

A cache may be given: the columns that it holds are not computed again. It knows no sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from vertebra.decode.state import cache as caches
from vertebra.decode.state.checks import check_cache
from vertebra.decode.state.decoding import DecodeState
from vertebra.decode.state.language import LAST, Requested, Seen
from vertebra.decode.state.ready import Ready, ready
from vertebra.errors import ConfigError, GenerationError, UnknownNameError
from vertebra.sequence.masks import Attend

_CACHES = ("dynamic", "static")


@dataclass(frozen=True, kw_only=True, eq=False)
class Keeping:
    """What a state keeps of its columns, and how it computes them."""

    cache: Any = "dynamic"
    """`dynamic`, `static`, a transformers cache that holds the first columns, or None: every pass computes all anew."""
    max_length: int | None = None
    trimmable: bool = True
    chunk: int | None = None
    attend: Attend | None = None


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
    requested: Requested = LAST,
) -> DecodeState:
    """Compute the prompts of a batch and keep them.

    `batch`: a `Batch`, a `TokenSequence` or a list of them. `cache`: `dynamic`, `static` (with `max_length` columns in
    all), or a transformers cache that holds the first columns. `trimmable`: keep what windowed layers would drop.
    `chunk`: at most so many columns in a pass. `upto`: only the first columns; `advance()` computes the rest.
    """
    prompt = ready(model, batch)
    if chunk is not None and chunk < 1:
        raise ConfigError(f"chunk is {chunk}; expected 1 or more columns in a pass")
    keeping = Keeping(cache=cache, max_length=max_length, trimmable=trimmable, chunk=chunk, attend=attend)
    return begin(prompt, keeping, upto=upto, requested=requested)


def begin(prompt: Ready, keeping: Keeping, *, upto: int | None = None, requested: Requested = LAST) -> DecodeState:
    """`prefill` of a prompt that was checked."""
    length, chunk = prompt.batch.length, keeping.chunk
    stop = length if upto is None else upto
    if not 0 < stop <= length:
        raise GenerationError(f"upto is {upto}; expected 1 to {length}, the columns of the batch")
    if requested.attentions and chunk is not None and chunk < stop:
        raise ConfigError("attentions of a prompt in chunks have no common shape; leave `chunk` out, or the attentions")
    state = _empty(prompt, keeping)
    shown: list[Seen] = []
    done = state.length
    while done < stop:
        done = stop if chunk is None else min(stop, done + chunk)
        state.advance(done, requested=requested if done == length else requested.without_logits())
        if state.seen is not None:
            shown.append(state.seen)
    if requested.hidden and len(shown) > 1:
        state.seen = Seen.joined(shown)
    return state


def _empty(prompt: Ready, keeping: Keeping) -> DecodeState:
    """A state with nothing computed but what the cache holds."""
    language, columns, cache = prompt.language, prompt.batch.length, keeping.cache
    config, most, static_length = language.llm.config, keeping.max_length, None
    if cache is None:
        return DecodeState(prompt, None, attend=keeping.attend)
    if isinstance(cache, str):
        if cache not in _CACHES:
            raise UnknownNameError("cache", cache, _CACHES, hint="Or give a transformers cache.")
        if cache == "static":
            if most is None or most < columns:
                raise GenerationError(
                    f"a static cache has a fixed length: give max_length, {columns} columns or more; it is {most}"
                )
            made, static_length = caches.static(config, most), most
        else:
            room = max(most or 0, columns + caches.ROOM)
            made = caches.growing(language.layers, config, trimmable=keeping.trimmable, room=room)
        return DecodeState(prompt, made, static_length=static_length, attend=keeping.attend)
    check_cache(cache, prompt.batch, language)
    made = caches.adopt(cache, trimmable=keeping.trimmable)
    length = int(made.get_seq_length())
    if caches.is_static(made):
        static_length = caches.static_length(made, window=language.facts.window, limit=language.limit)
    if length == columns:  # nothing is left that could predict: the last column is computed again
        with torch.inference_mode():
            caches.trim(made, length - 1)
        length -= 1
    return DecodeState(prompt, made, length=length, static_length=static_length, attend=keeping.attend)
