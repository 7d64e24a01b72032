"""A small transformer that reads a backbone's keys: one layer of its own for each of the backbone's that it reads.

    x [M, n, W] ─► norm ─► q, k, v ─► attention of q over [ keys of the backbone's layer │ k ] ─► + ─► norm ─► MLP ─► +

The n positions of a suffix see the prefix and each other, both ways. Its queries turn by position as the backbone's do,
where that is plain rotary. It knows neither actions nor times. Legend: W width of the expert, H heads of keys, G queries
of each.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from vertebra.model.heads.prefix import Prefix


class Norm(nn.RMSNorm):
    """Over the last dimension, in the type of what comes: under autocast that is another than the weight's."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.normalized_shape, None if self.weight is None else self.weight.to(x.dtype), self.eps)


class ExpertLayer(nn.Module):
    """Attention and a gated MLP, each behind a norm."""

    def __init__(self, width: int, *, heads: int, key_heads: int, head_dim: int, inner: int) -> None:
        super().__init__()
        self.key_heads, self.head_dim = key_heads, head_dim
        self.input_layernorm = Norm(width)
        self.q_proj = nn.Linear(width, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(width, key_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, key_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=False)
        self.post_attention_layernorm = Norm(width)
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(
        self, x: torch.Tensor, number: int, prefix: Prefix, mask: torch.Tensor | None, turn: torch.Tensor | None
    ) -> torch.Tensor:
        x = x + self._attention(self.input_layernorm(x), number, prefix, mask, turn)
        y = self.post_attention_layernorm(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))

    def _attention(
        self, x: torch.Tensor, number: int, prefix: Prefix, mask: torch.Tensor | None, turn: torch.Tensor | None
    ) -> torch.Tensor:
        rows, suffix = x.shape[:2]
        q, k, v = (
            project(x).view(rows, suffix, -1, self.head_dim).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if turn is not None:
            q, k = turned(q, turn), turned(k, turn)
        keys, values = prefix.joined(number, k, v)
        # all positions of the suffix see the same columns: the queries that share a head of keys stand in one row
        folded = q.reshape(rows, self.key_heads, -1, self.head_dim).to(keys.dtype)
        out = F.scaled_dot_product_attention(folded, keys, values, attn_mask=mask)
        out = out.view(rows, -1, suffix, self.head_dim).transpose(1, 2).reshape(rows, suffix, -1)
        return self.o_proj(out)


class Expert(nn.Module):
    """`layers` layers and a last norm."""

    def __init__(
        self, width: int, *, layers: int, heads: int, key_heads: int, head_dim: int, inner: int, theta: float | None
    ) -> None:
        super().__init__()
        self.head_dim, self.theta = head_dim, theta
        self.layers = nn.ModuleList(
            ExpertLayer(width, heads=heads, key_heads=key_heads, head_dim=head_dim, inner=inner) for _ in range(layers)
        )
        self.norm = Norm(width)

    def forward(self, x: torch.Tensor, prefix: Prefix) -> torch.Tensor:
        """[M, n, W] behind a prefix -> [M, n, W]."""
        mask = prefix.seen(x.shape[1])
        turn = None if self.theta is None else angles(prefix.start, x.shape[1], self.head_dim, self.theta)
        for number, layer in enumerate(self.layers):
            x = layer(x, number, prefix, mask, turn)
        return self.norm(x)


def angles(start: torch.Tensor, count: int, width: int, theta: float) -> torch.Tensor:
    """[M, 1, count, width / 2]: how far each position turns each pair of numbers."""
    rates = theta ** (-torch.arange(0, width, 2, device=start.device, dtype=torch.float32) / width)
    position = start[:, None] + torch.arange(count, device=start.device)
    return position[:, None, :, None].float() * rates


def turned(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """[M, heads, n, d] turned by position: number i and number i + d/2 are a pair."""
    cos, sin = turn.cos(), turn.sin()
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)
