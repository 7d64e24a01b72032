"""Seeded weights for the tiny checkpoints: random, but alive.

Fresh weights of a library have norms of one, biases of zero and flat logits, so that a test which forgets a norm, or
mixes two rows up, still passes. These have none of that: every vector is perturbed, greedy answers differ between
inputs, and rows beyond the vocabulary are nearly zero, as in real checkpoints. Each tensor is drawn from its own
name, so that a change in one leaves the others.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_NOISE = 0.1
"""Spread of what is added to norms and biases."""
_GAIN = 1.0
"""Spread of a matrix's output for input of spread one."""
_UNUSED = 0.01
"""Factor on rows that no token has."""


def fill(model: Any, *, seed: int, num_tokens: int, embed_std: float) -> None:
    """Draw every parameter of a fresh model, in place."""
    import torch

    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=_generator(seed, name))
            if parameter is embedding:
                parameter.copy_(noise * embed_std)
            elif parameter.dim() == 1:
                parameter.add_(noise * _NOISE)
            else:
                parameter.copy_(noise * _GAIN / _fan_in(model, name, parameter) ** 0.5)
        embedding[num_tokens:] *= _UNUSED
        if head is not None and head.weight is not embedding:
            head.weight[num_tokens:] *= _UNUSED
        if head is not None and getattr(head, "bias", None) is not None:
            head.bias[num_tokens:] *= _UNUSED


def _generator(seed: int, name: str) -> torch.Generator:
    import torch

    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def _fan_in(model: Any, name: str, parameter: torch.Tensor) -> int:
    """The number of inputs of a matrix; GPT-2 keeps its matrices the other way around."""
    owner = model.get_submodule(name.rpartition(".")[0])
    if type(owner).__name__ == "Conv1D":
        return parameter.shape[0]
    return parameter.shape[-1]
