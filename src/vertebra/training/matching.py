"""New weights that match from the first step on (`model.init: matching`): a position looks at others that are like itself, and
hands on what stands there.

    own rules   W_q and W_k drawn apart: every position looks at all others alike; copying is found late, or never
    matching    slow rotary pairs   W_k =  W_q   same token, same box: seen at any distance
                quick ones          W_k = -W_q   less so at no distance: else each would see itself first
                W_o = W_v turned round           what is seen is handed on as it is

What is learned by copying (a value from its place, a place from its name) is otherwise a long flat stretch of a small model's
training. After Trockman and Kolter, Mimetic initialization of self-attention layers (2023). It knows LLaMA's names of layers.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from vertebra.errors import ConfigError

FAR = 0.5
"""The share of rotary pairs that match, those that turn slowest: quick ones have turned away at a distance."""
SHARP = 1.4
"""How much larger queries and keys are than a model's own rules make them."""
HANDED_ON = 0.2
"""How much of what matches is handed on. At 1 a first look at everything would drown a position's own token."""
QUIET = 0.2
"""What the last matrix of a feed-forward layer is multiplied by, for the same reason."""
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


@torch.no_grad()
def match(llm: Any, *, seed: int) -> None:
    """Write such weights over those of the attention layers; `down_proj` is made smaller, everything else stays."""
    layers = _layers(llm)
    for number, layer in enumerate(layers):
        name = hashlib.sha256(f"{seed} matching {number}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(name[:8], "big") >> 1)
        _write(layer.self_attn, llm.config.get_text_config(), generator)
        layer.mlp.down_proj.weight.mul_(QUIET)


def _write(attention: Any, config: Any, generator: torch.Generator) -> None:
    """Keys of a head are its queries on the slow pairs; what it gives out is its values, turned back."""
    query, key, value, out = (getattr(attention, name).weight for name in PROJECTIONS)
    heads, groups = int(config.num_attention_heads), int(config.num_key_value_heads)
    size, wide = query.shape[0] // heads, query.shape[1]
    queries, keys = query.view(heads, size, wide), key.view(groups, size, wide)
    # head_dim columns turn in pairs (n, n + size / 2), the later the slower
    slow = torch.arange(size) % (size // 2) >= size // 2 * (1 - FAR)
    shared = queries.view(groups, heads // groups, size, wide)
    shared.mul_(SHARP)
    keys.copy_(torch.where(slow[:, None], shared[:, 0], -shared[:, 0]))
    shared.copy_(shared[:, :1].clone().expand_as(shared))
    drawn = torch.randn(max(value.shape), max(value.shape), generator=generator)
    turned = torch.linalg.qr(drawn)[0][: value.shape[0], : value.shape[1]].to(value)
    value.copy_(turned)
    each = turned.view(groups, 1, size, wide).expand(-1, heads // groups, -1, -1).reshape(heads * size, wide)
    out.copy_(each.T * (HANDED_ON * groups / heads))


def _layers(llm: Any) -> list[Any]:
    """The decoder's layers, where all of them have the projections that are written."""
    layers = list(getattr(getattr(llm, "model", None), "layers", ()))
    fit = [
        all(isinstance(getattr(getattr(layer, "self_attn", None), name, None), nn.Linear) for name in PROJECTIONS)
        and isinstance(getattr(getattr(layer, "mlp", None), "down_proj", None), nn.Linear)
        for layer in layers
    ]
    if not layers or not all(fit):
        raise ConfigError(
            f"model.init=matching writes {', '.join(PROJECTIONS)} and down_proj of every layer, as LLaMA and its kin have "
            f"them, and {type(llm).__name__} has other layers; leave model.init out, or take a backbone like tiny-llama2"
        )
    return layers
