"""From an encoder's width to the columns of the embedding matrix: one linear layer, or two or three with GELU between.

A fresh projector is brought to the size of token embeddings on the encoder's own sample items: features that are ten
times larger drown the text, and training then stays where it began. It knows neither encoders nor models.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from vertebra.errors import ConfigError, UnknownNameError

KINDS: dict[str, int] = {"linear": 1, "gelu2": 2, "gelu3": 3}
"""Kinds of projectors, and how many linear layers each has."""
FACTOR = 4
"""The first inner width of `gelu3`, in widths of its input."""


class Projector(nn.Module):
    """`linear`: fc1. `gelu2`: fc1, fc2. `gelu3`: fc1 (four times as wide as the input), fc2, fc3. GELU between them."""

    def __init__(self, kind: str, width_in: int, width_out: int) -> None:
        super().__init__()
        if kind not in KINDS:
            raise UnknownNameError("projector", kind, KINDS)
        if width_in < 1 or width_out < 1:
            raise ConfigError(f"a projector from width {width_in} to {width_out}; both must be 1 or more")
        self.kind, self.width_in, self.width_out = kind, width_in, width_out
        inner = {"linear": [], "gelu2": [width_out], "gelu3": [FACTOR * width_in, width_out]}[kind]
        widths = [width_in, *inner, width_out]
        for number, (wide, narrow) in enumerate(pairwise(widths), 1):
            self.add_module(f"fc{number}", nn.Linear(wide, narrow))

    @property
    def layers(self) -> list[nn.Linear]:
        return [self.get_submodule(f"fc{number}") for number in range(1, KINDS[self.kind] + 1)]  # type: ignore[misc]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        first, *others = self.layers
        hidden = first(features.to(first.weight.dtype))
        for layer in others:
            hidden = layer(nn.functional.gelu(hidden))
        return hidden

    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "width_in": self.width_in, "width_out": self.width_out}


def rms(values: torch.Tensor) -> float:
    """The root of the mean square of all entries."""
    return float(values.detach().float().square().mean().sqrt())


@torch.no_grad()
def mark(projector: Projector) -> str | None:
    """A short hash of some weights, rounded to bfloat16 so that a change of type is no change; None on meta."""
    digest = hashlib.sha256()
    for layer in projector.layers:
        if layer.weight.is_meta:
            return None
        step = max(1, layer.weight.numel() // 256)
        some = layer.weight.detach().reshape(-1)[::step].to("cpu", torch.bfloat16)
        digest.update(some.contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def bring_to_size(projector: Projector, features: torch.Tensor, size: float) -> float:
    """Scale the last layer so that these features come out with the RMS `size`; returns what the RMS was before."""
    before = rms(projector(features))
    if not 0 < before < float("inf"):
        raise ConfigError(f"the projector makes embeddings of RMS {before} from sample features; expected above 0")
    last = projector.layers[-1]
    last.weight.mul_(size / before)
    last.bias.mul_(size / before)
    return before
