"""FiLM: what was asked scales and shifts what a tower sees, in the middle of every block.

    x ──► x + attention ──► x · (1 + γ) + β ──► x + mlp          γ, β = linears of the mean embedding of the row's text

Of OpenVLA-OFT. A block of transformers does both halves in one call; here they are called by themselves. Knows no text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vertebra.errors import ConfigError


class Film(nn.Module):
    """`scale` and `shift` of each block: [M, text] -> [M, width]."""

    def __init__(self, blocks: int, text: int, width: int) -> None:
        super().__init__()
        if text < 1:
            raise ConfigError(f"film={text}; expected the width of the text's embedding, 1 or more")
        self.scale = nn.ModuleList(nn.Linear(text, width) for _ in range(blocks))
        self.shift = nn.ModuleList(nn.Linear(text, width) for _ in range(blocks))

    def forward(self, block: int, hidden: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        text = text.to(hidden.dtype)
        return hidden * (1 + self.scale[block](text)[:, None]) + self.shift[block](text)[:, None]


def through(blocks: Any, film: Film, hidden: torch.Tensor, text: torch.Tensor, model_type: str) -> torch.Tensor:
    """All blocks, modulated."""
    attend, feed = HALVES[model_type]
    for number, block in enumerate(blocks):
        hidden = feed(block, film(number, attend(block, hidden), text))
    return hidden


def _dino_attend(block: Any, x: torch.Tensor) -> torch.Tensor:
    return x + block.layer_scale1(block.attention(block.norm1(x))[0])


def _dino_feed(block: Any, x: torch.Tensor) -> torch.Tensor:
    return x + block.layer_scale2(block.mlp(block.norm2(x)))


def _siglip_attend(block: Any, x: torch.Tensor) -> torch.Tensor:
    return x + block.self_attn(hidden_states=block.layer_norm1(x), attention_mask=None)[0]


def _siglip_feed(block: Any, x: torch.Tensor) -> torch.Tensor:
    return x + block.mlp(block.layer_norm2(x))


Half = Callable[[Any, torch.Tensor], torch.Tensor]
HALVES: dict[str, tuple[Half, Half]] = {
    "dinov2": (_dino_attend, _dino_feed),
    "dinov2_with_registers": (_dino_attend, _dino_feed),
    "siglip_vision_model": (_siglip_attend, _siglip_feed),
    "clip_vision_model": (_siglip_attend, _siglip_feed),
}
"""The two halves of a block, by model type."""
