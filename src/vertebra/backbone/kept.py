"""What each layer keeps of the columns it sees, with its gradients: keys and values, for heads that read them.

    layer 0   keys [B, H, L, d]   values [B, H, L, d]       H: the heads of keys, fewer than those of queries
    layer 1   …                                             windowed layers keep all columns here

It knows the library's caches, and no heads.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from vertebra.errors import BackboneError

LayerKeys = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, [B, H, L, d] each."""


def kinds_of(config: Any) -> tuple[int | None, ...] | None:
    """The window of each layer (None: it has none), or None where a layer is of a kind that we do not know."""
    layers = DynamicCache(config=config).layers
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return None
    return tuple(getattr(layer, "sliding_window", None) for layer in layers)


class _KeptLayer(DynamicLayer):
    """Keeps what one pass gives it, as it was given."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys, self.values = key_states, value_states
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        return key_states, value_states


def keeping(llm: Any) -> Cache:
    """A cache for one pass over whole rows, which keeps every column of every layer."""
    kinds = kinds_of(llm.config)
    if kinds is None:
        raise BackboneError(
            f"{type(llm).__name__} has layers that keep no keys and values of each position (a state that runs along), so "
            "that no head can read them. Take a head that reads hidden states (`l1`), or another backbone"
        )
    layers = [_KeptLayer() for _ in kinds]
    for layer, window in zip(layers, kinds, strict=True):
        layer.is_sliding = window is not None
    return Cache(layers=layers)


def kept(cache: Any) -> tuple[LayerKeys, ...]:
    """The keys and values of every layer after a pass."""
    empty = [number for number, layer in enumerate(cache.layers) if not layer.is_initialized]
    if empty:
        raise BackboneError(
            f"layers {empty[:4]} kept nothing of the pass. Gradient checkpointing takes a model's cache away while it "
            "trains: a head that reads it needs optim.checkpointing=false"
        )
    return tuple((layer.keys, layer.values) for layer in cache.layers)


def key_shape(config: Any) -> tuple[int, int, int]:
    """(layers, heads of keys, width of one) by a config alone."""
    config = config.get_text_config()
    heads = config.num_attention_heads
    return (
        int(config.num_hidden_layers),
        int(getattr(config, "num_key_value_heads", None) or heads),
        int(getattr(config, "head_dim", None) or config.hidden_size // heads),
    )


def rotary_theta(config: Any) -> float | None:
    """The base of a model's rotary positions, where whole heads turn at plain rates; else None."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    if rope and all(isinstance(value, dict) for value in rope.values()):  # one for each type of layer
        rope = rope.get("full_attention") or next(iter(rope.values()))
    theta, share = rope.get("rope_theta"), rope.get("partial_rotary_factor")
    return float(theta) if theta and share in (None, 1.0) else None
