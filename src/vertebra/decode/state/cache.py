"""Key-value caches for our engine: made, adopted from somebody else, forked by rows, trimmed to a length.

Models see an ordinary `Cache`. The growing kind is made of our layers; the static kind is the library's. This module
knows caches, and neither masks nor tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import (
    Cache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    StaticCache,
    StaticLayer,
    StaticSlidingWindowLayer,
)

from vertebra.decode.state.cache_layers import ROOM, PassingLayer, RoomLayer, WindowLayer
from vertebra.errors import GenerationError


def growing(kinds: tuple[int | None, ...] | None, config: Any, *, trimmable: bool, room: int = ROOM) -> Cache:
    """An empty cache, with room for so many positions before it moves."""
    if kinds is None:
        return DynamicCache(config=config)  # it can be decoded with, but neither forked nor trimmed
    return Cache(layers=[_layer(window, trimmable=trimmable, room=room) for window in kinds])


def passing(kinds: tuple[int | None, ...]) -> Cache:
    """A cache that keeps nothing, and so can serve any number of calls."""
    return Cache(layers=[_passing(window) for window in kinds])


def _passing(window: int | None) -> PassingLayer:
    layer = PassingLayer()
    layer.is_sliding = window is not None
    return layer


def _layer(window: int | None, *, trimmable: bool, room: int) -> RoomLayer:
    if window is None:
        return RoomLayer(room)
    # one that keeps no more than its window moves now and then, and drops the rest
    return WindowLayer(window, record_past=trimmable, room=room if trimmable else ROOM // 4)


def static(config: Any, max_length: int) -> Cache:
    """A cache whose tensors never move: what compiled steps and CUDA graphs need."""
    return StaticCache(config=config, max_cache_len=max_length)


def grows(cache: Any) -> bool:
    """Whether every layer is one of ours, which a step writes in place, or not at all."""
    return all(isinstance(layer, RoomLayer | PassingLayer) for layer in cache.layers)


def is_static(cache: Any) -> bool:
    return isinstance(cache, StaticCache)


def static_length(cache: Any, *, window: int | None, limit: int | None) -> int:
    """How many columns a static cache of somebody else's can take. Windows alone roll, and take any number of them."""
    full = [int(layer.max_cache_len) for layer in cache.layers if not layer.is_sliding]
    if full:
        return min(full)
    shortest = min(int(layer.max_cache_len) for layer in cache.layers)
    # one that is shorter than the window never rolls: what it drops would still be seen
    return limit if window is not None and limit is not None and shortest >= window else shortest


def adopt(cache: Any, *, trimmable: bool) -> Cache:
    """A cache of somebody else's as one of ours. A dynamic one is not changed: its tensors are copied before the
    first write. A static one is taken as it is.
    """
    if not isinstance(cache, Cache):
        raise GenerationError(
            f"the cache is a {type(cache).__name__}; expected a transformers Cache, such as DynamicCache or StaticCache"
        )
    if is_static(cache):
        return cache
    layers = []
    for number, layer in enumerate(cache.layers):
        if isinstance(layer, RoomLayer):
            layers.append(layer.fork(None))
            continue
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise GenerationError(
                f"layer {number} of the cache is a {type(layer).__name__}; our engine continues dynamic and static "
                'caches. Use engine="hf" for others'
            )
        new = _layer(getattr(layer, "sliding_window", None), trimmable=trimmable, room=ROOM)
        if layer.is_initialized:
            new.hold(layer.keys, layer.values)
        if isinstance(new, WindowLayer):
            new.cumulative_length = layer.cumulative_length
        layers.append(new)
    return Cache(layers=layers)


def fork(cache: Cache, rows: torch.Tensor | None) -> Cache:
    """A cache of its own with these rows of `cache` (None: all of them)."""
    layers = []
    for number, layer in enumerate(cache.layers):
        if isinstance(layer, RoomLayer):
            layers.append(layer.fork(rows))
        elif type(layer) in (StaticLayer, StaticSlidingWindowLayer):
            layers.append(_fork_static(layer, rows))
        else:
            raise GenerationError(f"layer {number} of the cache is a {type(layer).__name__}, which cannot be forked")
    if not is_static(cache):
        return Cache(layers=layers)
    new: Any = object.__new__(StaticCache)  # its own constructor would make other layers
    Cache.__init__(new, layers=layers)
    return new


def _fork_static(layer: Any, rows: torch.Tensor | None) -> Any:
    if isinstance(layer, StaticSlidingWindowLayer):
        new: Any = StaticSlidingWindowLayer(layer.max_cache_len, layer.max_cache_len)
        new.cumulative_length_int = layer.cumulative_length_int
    else:
        new = StaticLayer(layer.max_cache_len)
    if layer.is_initialized:
        keys, values = (layer.keys, layer.values) if rows is None else (layer.keys[rows], layer.values[rows])
        new.lazy_initialization(keys, values)
        new.keys.copy_(keys)
        new.values.copy_(values)
        new.cumulative_length.copy_(layer.cumulative_length)
    return new


def trim(cache: Cache, length: int) -> None:
    """Keep the first `length` positions of every layer; refused before anything is changed."""
    for number, layer in enumerate(cache.layers):
        if isinstance(layer, RoomLayer):
            layer.check_keep(length)
        elif isinstance(layer, StaticSlidingWindowLayer) and layer.cumulative_length_int > layer.max_cache_len:
            raise GenerationError(
                f"layer {number} is a static window of {layer.max_cache_len} positions that moved on, and cannot be "
                "trimmed; use a dynamic cache"
            )
        elif type(layer) not in (StaticLayer, StaticSlidingWindowLayer):
            raise GenerationError(f"layer {number} of the cache is a {type(layer).__name__}, which cannot be trimmed")
    for layer in cache.layers:
        if isinstance(layer, RoomLayer):
            layer.keep(length)
        elif layer.is_initialized:
            layer.cumulative_length.fill_(length)
            if isinstance(layer, StaticSlidingWindowLayer):
                layer.cumulative_length_int = length


def hand_out(cache: Cache, *, whole: bool) -> None:
    """What windowed layers hand out: every key where padding stands inside rows, else those of the window."""
    for number, layer in enumerate(cache.layers):
        if isinstance(layer, WindowLayer):
            layer.hand_out(whole=whole)
        elif whole and getattr(layer, "is_sliding", False):
            raise GenerationError(
                f"layer {number} of the cache is a {type(layer).__name__}; padding inside the rows of a windowed model "
                "needs a dynamic cache"
            )


def num_bytes(cache: Any) -> int:
    """What the cache holds, unused room counted."""
    total = 0
    for layer in cache.layers:
        if isinstance(layer, RoomLayer):
            total += layer.num_bytes()
        elif layer.is_initialized:
            total += sum(tensor.numel() * tensor.element_size() for tensor in (layer.keys, layer.values))
    return total
