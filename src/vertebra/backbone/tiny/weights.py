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
_PEAK = 3.0
"""Spread of the logits: as peaked as a trained model's, so that greedy answers are stable and differ."""
_UNUSED = 0.01
"""Factor on rows that no token has."""

# Spread of the embedding. With a tied head a token asks for itself again, and more so the larger its embedding is
# beside what the layers add: small enough, and greedy answers do not repeat the last token for ever.
_UNTIED, _TIED = 0.5, 0.08
# The last step before a tied head, which sets how peaked the logits are.
_BEFORE_HEAD = (
    "model.norm.weight",
    "transformer.ln_f.weight",
    "model.decoder.final_layer_norm.weight",
    "model.decoder.project_out.weight",
    "cls.predictions.transform.LayerNorm.weight",
)


def fill(model: Any, *, seed: int, num_tokens: int) -> None:
    """Draw every parameter of a fresh model, in place."""
    import torch

    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    tied = head is None or head.weight is embedding
    scale = getattr(model.get_input_embeddings(), "scalar_embed_scale", 1.0)  # Gemma multiplies what it looks up
    spread = (_TIED if tied else _UNTIED) / min(scale, 4.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=_generator(seed, name))
            if parameter is embedding:
                parameter.copy_(noise * spread)
            elif parameter.dim() == 1:
                parameter.add_(noise * _NOISE)
            else:
                parameter.copy_(noise / _fan_in(model, name, parameter) ** 0.5)
        if tied:
            _sharpen(model, _PEAK / (spread * embedding.shape[1] ** 0.5))
        else:
            head.weight *= _PEAK
            head.weight[num_tokens:] *= _UNUSED
        embedding[num_tokens:] *= _UNUSED
        if getattr(head, "bias", None) is not None:
            head.bias[num_tokens:] *= _UNUSED


def _sharpen(model: Any, factor: float) -> None:
    parameters = dict(model.named_parameters())
    for name in _BEFORE_HEAD:
        if name in parameters:
            scale = parameters[name]
            # Gemma's norms multiply by 1 + weight.
            offset = 1.0 if scale.dim() == 1 and abs(float(scale.mean())) < 0.5 else 0.0
            scale.copy_((scale + offset) * factor - offset)
            return


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
