"""One decode step of a LLaMA-like model in few large operations: the same numbers, without the cost of its modules.

    stock   norm(6 ops) q k v rotate(8 ops) cache attention o  norm(6 ops) gate up act down     each through its module
    here    rms_norm · qkv in one product · rotate q and k together · cache in place · sdpa · o · rms_norm · gate and up
            in one product · act · down

At one new column a row most of the time is spent between the products; on 135 M parameters this step takes 0.8 of the
stock one's time, on tiny models a quarter. It is taken where the model is made of modules known here and nobody hangs
on them, and where a trial gives what the stock modules give; all else is run by the stock modules. Merged matrices
are one tensor of which the modules' own weights are views, so nothing is held twice.

    B rows, D width, N query heads, K key heads, H their width
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vertebra.decode.state.cache_layers import RoomLayer

# Attention and feed-forward classes that do what is done here; another class may do more under the same names.
_ATTENTION = {"LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention", "SmolLM3Attention"}
_FEED_FORWARD = {"LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP", "SmolLM3MLP"}
_BODY = {"LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model", "SmolLM3Model"}
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5}
_LOW_TOLERANCE = 4e-2
"""Of the largest hidden value, in 16 bits: another order of additions rounds elsewhere."""
_MERGED_BYTES = 32 << 20
"""Larger matrices are products of their own: merging them would copy them and gain nothing."""


@dataclass(frozen=True, eq=False)
class _Product:
    """Linears that read the same input, as one product where they are merged."""

    parts: tuple[nn.Linear, ...]
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    places: tuple[int, ...]
    """Where the parts' weights lay when this was made."""

    @classmethod
    def of(cls, *parts: nn.Linear) -> _Product:
        weight = bias = None
        total = sum(part.weight.numel() * part.weight.element_size() for part in parts)
        if len(parts) > 1 and total <= _MERGED_BYTES:
            weight, bias = _merged([part.weight for part in parts]), None
            if parts[0].bias is not None:
                bias = _merged([part.bias for part in parts])
        return cls(parts, weight, bias, tuple(part.weight.data_ptr() for part in parts))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.weight is not None:
            return F.linear(x, self.weight, self.bias)
        made = [F.linear(x, part.weight, part.bias) for part in self.parts]
        return made[0] if len(made) == 1 else torch.cat(made, -1)

    def holds(self) -> bool:
        """Whether the parts still have the weights that were merged."""
        return all(part.weight.data_ptr() == place for part, place in zip(self.parts, self.places, strict=True))


def _merged(weights: list[torch.Tensor]) -> torch.Tensor:
    """One tensor with these below each other; each becomes a view of its rows."""
    whole = torch.cat([weight.data for weight in weights])
    start = 0
    for weight in weights:
        weight.data = whole[start : start + len(weight)]
        start += len(weight)
    return whole


@dataclass(frozen=True, eq=False)
class _Layer:
    """What one decoder layer computes with."""

    first: nn.Module
    second: nn.Module
    qkv: _Product
    out: _Product
    gate_up: _Product
    down: _Product
    activation: Callable[[torch.Tensor], torch.Tensor]
    heads: tuple[int, int, int]
    """N, K, H."""
    scaling: float
    rotates: bool
    head_norms: tuple[nn.Module, nn.Module] | None
    kind: str


class FusedStep:
    """The step of one model; `run` gives the last hidden states [B, D], after the final norm."""

    def __init__(self, llm: Any, layer_types: tuple[str, ...]) -> None:
        body = llm.base_model
        self.embed, self.norm, self.rotary = body.embed_tokens, body.norm, body.rotary_emb
        with torch.inference_mode(False), torch.no_grad():  # the weights may still be trained one day
            self.layers = tuple(_layer_of(layer, kind) for layer, kind in zip(body.layers, layer_types, strict=True))
        self._hooks = [
            hooks for module in body.modules() for hooks in (module._forward_hooks, module._forward_pre_hooks)
        ]

    def free(self) -> bool:
        """Whether nobody hangs on the modules, whom this step would pass by."""
        return not any(self._hooks)

    def holds(self) -> bool:
        """Whether the model still has the weights that this was made of."""
        return all(
            product.holds() for layer in self.layers for product in (layer.qkv, layer.out, layer.gate_up, layer.down)
        )

    def run(self, ids: torch.Tensor, mask: Any, positions: torch.Tensor, cache: Any) -> torch.Tensor:
        """ids and positions [B, 1]; the cache grows by one column."""
        x = self.embed(ids[:, 0])
        cos, sin = _turns(self.rotary(x, positions))
        for layer, kept in zip(self.layers, cache.layers, strict=True):
            x = x + layer.out(_attended(layer, x, mask, cos, sin, kept))
            gate, up = layer.gate_up(_normed(layer.second, x)).chunk(2, -1)
            x = x + layer.down(layer.activation(gate) * up)
        return _normed(self.norm, x)


def _attended(
    layer: _Layer, x: torch.Tensor, mask: Any, cos: torch.Tensor, sin: torch.Tensor, kept: Any
) -> torch.Tensor:
    queries, keys, width = layer.heads
    qkv = layer.qkv(_normed(layer.first, x)).unflatten(-1, (-1, width))
    qk, values = qkv[:, : queries + keys], qkv[:, queries + keys :]
    if layer.head_norms is not None:
        q_norm, k_norm = layer.head_norms
        qk = torch.cat([_normed(q_norm, qk[:, :queries]), _normed(k_norm, qk[:, queries:])], 1)
    if layer.rotates:
        qk = qk * cos + qk.roll(width // 2, -1) * sin
    seen_keys, seen_values = kept.update(qk[:, queries:, None], values[:, :, None])
    seen = F.scaled_dot_product_attention(
        qk[:, :queries, None],
        seen_keys,
        seen_values,
        attn_mask=mask.get(layer.kind) if isinstance(mask, dict) else mask,
        scale=layer.scaling,
        enable_gqa=queries != keys,
    )
    return seen.flatten(1)


def _normed(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)  # type: ignore[arg-type]


def _turns(pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin as [B, 1, H], the sine's first half negated: a half turn then is a roll and a product."""
    cos, sin = pair
    half = sin.shape[-1] // 2
    return cos[:, :1], torch.cat((-sin[:, :1, :half], sin[:, :1, half:]), -1)


def _layer_of(layer: Any, kind: str) -> _Layer:
    attention, feed = layer.self_attn, layer.mlp
    width = attention.head_dim
    norms = (attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None
    return _Layer(
        first=layer.input_layernorm,
        second=layer.post_attention_layernorm,
        qkv=_Product.of(attention.q_proj, attention.k_proj, attention.v_proj),
        out=_Product.of(attention.o_proj),
        gate_up=_Product.of(feed.gate_proj, feed.up_proj),
        down=_Product.of(feed.down_proj),
        activation=feed.act_fn,
        heads=(attention.q_proj.out_features // width, attention.k_proj.out_features // width, width),
        scaling=float(attention.scaling),
        rotates=bool(getattr(attention, "use_rope", True)),
        head_norms=norms,
        kind=kind,
    )


def is_known(llm: Any) -> bool:
    """Whether a model is made of modules whose step is written here, and of plain matrices."""
    body = llm.base_model
    if type(body).__name__ not in _BODY or not hasattr(body, "layers"):
        return False
    return all(
        type(layer.self_attn).__name__ in _ATTENTION
        and type(layer.mlp).__name__ in _FEED_FORWARD
        and all(
            type(module) is nn.Linear
            for module in [*layer.self_attn.children(), *layer.mlp.children()]
            if hasattr(module, "in_features")
        )
        for layer in body.layers
    )


@torch.inference_mode()
def fused_step(llm: Any, layer_types: tuple[str, ...]) -> FusedStep | None:
    """The fused step of a model, tried once beside the model itself; None where the two differ or it is not known."""
    if llm.device.type != "cpu" or not is_known(llm):  # on a GPU graphs of the stock modules do as well
        return None
    step = FusedStep(llm, layer_types)
    if not step.free():
        return None
    ids = torch.arange(6, device=llm.device)[None].remainder(llm.get_input_embeddings().weight.shape[0]).expand(2, -1)
    hidden = []
    for fused in (False, True):
        cache = _cache_of(len(step.layers))
        llm.base_model(input_ids=ids[:, :5], past_key_values=cache, use_cache=True)
        last, positions = ids[:, 5:], torch.full((2, 1), 5, device=llm.device)
        if fused:
            hidden.append(step.run(last, None, positions, cache))
        else:
            out = llm.base_model(input_ids=last, position_ids=positions, past_key_values=cache, use_cache=True)
            hidden.append(out.last_hidden_state[:, -1])
    bound = _TOLERANCE.get(llm.dtype, _LOW_TOLERANCE) * float(hidden[0].abs().max())
    return step if bool((hidden[0] - hidden[1]).abs().max() <= bound) else None


def _cache_of(layers: int) -> Any:
    from transformers.cache_utils import Cache

    return Cache(layers=[RoomLayer() for _ in range(layers)])
