"""Small models and batches for these tests."""

from __future__ import annotations

from typing import Any

import torch

from vertebra.backbone.registry import load_backbone
from vertebra.multimodal.model import MultimodalModel
from vertebra.sequence.batch import Batch, collate
from vertebra.sequence.tokens import TokenSequence


def tiny(name: str = "tiny-llama2", **options: Any) -> MultimodalModel:
    return MultimodalModel(load_backbone(name, **{"dtype": "float32", **options}))


def random_batch(rows: list[int], *, seed: int = 0, vocabulary: int = 200, supervised: float = 0.5) -> Batch:
    """Rows of these lengths with random ids, weights of 0, 1 and 2.5 among them."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for length in rows:
        ids = torch.randint(5, vocabulary, (length,), generator=generator).tolist()
        draw = torch.rand(length, generator=generator).tolist()
        weight = [(2.5 if d < supervised / 4 else 1.0) if d < supervised else 0.0 for d in draw]
        weight[-1] = 1.0
        made.append(TokenSequence.of(ids, weight=weight))
    return collate(made, pad_id=0)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
