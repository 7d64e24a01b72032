"""One decode step of a LLaMA-like model in few large operations: the same numbers, without the cost of its modules.

    stock   norm(6 ops) q k v rotate(8 ops) cache attention o  norm(6 ops) gate up act down     each through its module
    here    rms_norm · qkv in one product · rotate q and k together · cache in place · sdpa · o · rms_norm · gate and up
            in one product · act · down

On a small model most of a step's time is spent between the products, on a large one in them; `products` finds how they
are computed fastest here. The step is taken where the model is made of modules known here and nobody hangs on them, and
where a trial gives what the stock modules give; all else is run by the stock modules. Merged matrices are one tensor of
which the modules' own weights are views.

    B rows, D width, N query heads, K key heads, H their width
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vertebra.backbone.head import Head
from vertebra.decode.state.cache_layers import RoomLayer
from vertebra.decode.state.products import Product, Way, is_plain

# Attention and feed-forward classes that do what is done here; another class may do more under the same names.
_ATTENTION = {"LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention", "SmolLM3Attention"}
_FEED_FORWARD = {"LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP", "SmolLM3MLP"}
_BODY = {"LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model", "SmolLM3Model"}
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5}
_LOW_TOLERANCE = 4e-2
"""Of the largest hidden value, in 16 bits: another order of additions rounds elsewhere."""
_IDLE_HOOKS = "transformers.utils.output_capturing"


@dataclass(frozen=True, eq=False)
class _Layer:
    """What one decoder layer computes with."""

    first: nn.Module
    second: nn.Module
    qkv: Product
    out: Product
    gate_up: Product
    down: Product
    activation: Callable[[torch.Tensor], torch.Tensor]
    heads: tuple[int, int, int]
    """N, K, H."""
    scaling: float
    rotates: bool
    head_norms: tuple[nn.Module, nn.Module] | None
    kind: str


class FusedStep:
    """The step of one model: `run` gives the last hidden states [B, D], after the final norm, and `logits` theirs."""

    def __init__(self, llm: Any, layer_types: tuple[str, ...], head: Head, way: Way = "torch") -> None:
        body = llm.base_model
        self.embed, self.norm, self.rotary = body.embed_tokens, body.norm, body.rotary_emb
        loaded_for_inference = self.norm.weight.is_inference()  # otherwise the weights may still be trained one day
        with torch.inference_mode(loaded_for_inference), torch.no_grad():
            self.layers = tuple(
                _layer_of(layer, kind, way) for layer, kind in zip(body.layers, layer_types, strict=True)
            )
            self._head = _head_of(head, way)
        self._form, self.way = head.form, way
        products = [p for layer in self.layers for p in (layer.qkv, layer.out, layer.gate_up, layer.down)]
        self._products = products if self._head is None else [*products, self._head]
        modules = [*body.modules(), head.module]
        self._hooks = [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]

    def free(self) -> bool:
        """Whether nobody hangs on the modules, whom this step would pass by. Hooks that transformers has left since it
        was once asked for hidden states do nothing until it is asked again."""
        return not any(hook.__module__ != _IDLE_HOOKS for hooks in self._hooks for hook in hooks.values())

    def holds(self) -> bool:
        """Whether the model still has the weights that this was made of."""
        return all(product.holds() for product in self._products)

    def is_fresh(self) -> bool:
        """Whether what was packed is what the model holds now."""
        return all(product.is_fresh() for product in self._products)

    def run(self, ids: torch.Tensor, mask: Any, positions: torch.Tensor, cache: Any) -> torch.Tensor:
        """ids and positions [B, 1]; the cache grows by one column."""
        x = self.embed(ids[:, 0])
        turns = _turns(self.rotary(x, positions))
        for layer, kept in zip(self.layers, cache.layers, strict=True):
            x = _through(layer, x, mask, turns, kept)
        return _normed(self.norm, x)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
        """[B, V]; None where the head is more than one matrix."""
        return None if self._head is None else self._form(self._head(hidden))

    def agrees(self, states: list[torch.Tensor], positions: torch.Tensor, cache: Any) -> bool:
        """Whether each layer makes of the stock one's input what the stock one did: `states` [B, D] enter the layers, the
        last one left the norm. Layer by layer, since in 16 bits the rounding of thirty would hide a fault of one."""
        turns = _turns(self.rotary(states[0], positions))
        bound = _TOLERANCE.get(states[0].dtype, _LOW_TOLERANCE)
        for layer, kept, x, expected in zip(self.layers, cache.layers, states, states[1:], strict=False):
            found = _through(layer, x, None, turns, kept)
            found = _normed(self.norm, found) if expected is states[-1] else found
            if not bool((found - expected).abs().max() <= bound * expected.abs().max()):
                return False
        return True


def _through(layer: _Layer, x: torch.Tensor, mask: Any, turns: tuple[torch.Tensor, torch.Tensor], kept: Any) -> Any:
    """One decoder layer: [B, D] to [B, D]."""
    x = x + layer.out(_attended(layer, x, mask, *turns, kept))
    gate, up = layer.gate_up(_normed(layer.second, x)).chunk(2, -1)
    return x + layer.down(layer.activation(gate) * up)


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
    # query heads of one key head as so many queries of it: the same products, in fewer and larger ones
    seen = F.scaled_dot_product_attention(
        qk[:, :queries].unflatten(1, (keys, -1)),
        seen_keys,
        seen_values,
        attn_mask=mask.get(layer.kind) if isinstance(mask, dict) else mask,
        scale=layer.scaling,
    )
    return seen.flatten(1)


def _normed(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)  # type: ignore[arg-type]


def _turns(pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin as [B, 1, H], the sine's first half negated: a half turn then is a roll and a product."""
    cos, sin = pair
    half = sin.shape[-1] // 2
    return cos[:, :1], torch.cat((-sin[:, :1, :half], sin[:, :1, half:]), -1)


def _head_of(head: Head, way: Way) -> Product | None:
    module = head.module
    return Product.of(module, way=way) if type(module) is nn.Linear and is_plain(module.weight) else None


def _layer_of(layer: Any, kind: str, way: Way) -> _Layer:
    attention, feed = layer.self_attn, layer.mlp
    width = attention.head_dim
    norms = (attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None
    return _Layer(
        first=layer.input_layernorm,
        second=layer.post_attention_layernorm,
        qkv=Product.of(attention.q_proj, attention.k_proj, attention.v_proj, way=way),
        out=Product.of(attention.o_proj, way=way),
        gate_up=Product.of(feed.gate_proj, feed.up_proj, way=way),
        down=Product.of(feed.down_proj, way=way),
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
            type(module) is nn.Linear and is_plain(module.weight)
            for module in [*layer.self_attn.children(), *layer.mlp.children()]
            if hasattr(module, "in_features")
        )
        for layer in body.layers
    )


@torch.inference_mode()
def fused_step(llm: Any, layer_types: tuple[str, ...], head: Head, way: Way = "torch") -> FusedStep | None:
    """The fused step of a model, tried once beside the model itself; None where the two differ or it is not known."""
    if llm.device.type != "cpu" or not is_known(llm):  # on a GPU graphs of the stock modules do as well
        return None
    step = FusedStep(llm, layer_types, head, way)
    if not step.free():
        return None
    # tokens from all over the vocabulary: the first ids are special ones, on which real models do strange things
    ids = torch.randint(len(llm.get_input_embeddings().weight), (2, 6), generator=torch.Generator().manual_seed(0))
    positions = torch.full((2, 1), 5)
    stock, own = _cache_of(len(step.layers)), _cache_of(len(step.layers))
    for cache in (stock, own):
        llm.base_model(input_ids=ids[:, :5], past_key_values=cache, use_cache=True)
    states: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda module, args: states.append(args[0][:, 0]))
        for layer in llm.base_model.layers
    ]
    try:
        out = llm.base_model(input_ids=ids[:, 5:], position_ids=positions, past_key_values=stock, use_cache=True)
    finally:
        for hook in hooks:
            hook.remove()
    return step if step.agrees([*states, out.last_hidden_state[:, 0]], positions, own) else None


def _cache_of(layers: int) -> Any:
    from transformers.cache_utils import Cache

    return Cache(layers=[RoomLayer() for _ in range(layers)])
