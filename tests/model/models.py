"""Tiny multimodal models and rows for them: a fused-tower camera, a page of boxes, proprio and action queries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from vertebra.backbone.registry import load_backbone
from vertebra.model.encoders.boxes import BoxTables, BoxWaves
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.encoders.vector import VectorEncoder
from vertebra.model.encoders.vision import FusedTowers, VisionTower
from vertebra.model.encoders.vision.tiny import tiny_vision_checkpoint
from vertebra.model.fresh import new_part, new_queries
from vertebra.model.model import Model
from vertebra.sequence.batch import Batch
from vertebra.sequence.tokens import Role, TokenSequence

SIZE = 28
PATCHES = 4
"""Slots of one image, for the patch encoder (28 pixels in patches of 14) and for the towers."""


def build(name: str = "tiny-llama2", *, towers: bool = False, seed: int = 0, **options: Any) -> Model:
    """A model that nobody else holds."""
    backbone = load_backbone(name, dtype="float32", **options)
    torch.manual_seed(seed)
    if towers:
        kinds = ("tiny-dinov2", "tiny-siglip")
        camera = FusedTowers([VisionTower.load(tiny_vision_checkpoint(kind)) for kind in kinds])
    else:
        camera = PatchEncoder(32, image_size=SIZE, patch_size=14)
    parts = {
        "image": new_part(backbone, camera, "gelu3" if towers else "gelu2", place="anchored"),
        "boxes": new_part(backbone, BoxTables(8), "linear"),
        "where": new_part(backbone, BoxWaves(4), "linear", place="added"),
        "proprio": new_part(backbone, VectorEncoder(7)),
        "action": new_queries(backbone, 6),
    }
    return Model(backbone, parts)


@cache
def shared(name: str = "tiny-llama2", **options: Any) -> Model:
    """A model to be read and run, and left as it was; in evaluation mode."""
    return build(name, **options).eval()


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8)


def boxes(count: int, seed: int = 0) -> np.ndarray:
    corners = np.sort(np.random.default_rng(seed).integers(0, 1001, (count, 2, 2)), axis=1)
    return corners.reshape(count, 4)


def slots(name: str, count: int, **vectors: Any) -> TokenSequence:
    return TokenSequence.of([5] * count, slot=[(0, i) for i in range(count)], segments=[name], **vectors)


def text(length: int, seed: int = 0, *, weight: float = 0.0) -> TokenSequence:
    ids = np.random.default_rng(seed).integers(10, 700, length)
    return TokenSequence.of(ids, weight=weight, role=Role.ASSISTANT if weight else Role.USER)


def tagged(length: int, seed: int = 0) -> TokenSequence:
    """Words that each have a box added to them."""
    ids = np.random.default_rng(seed).integers(10, 700, length)
    return TokenSequence.of(ids, target=ids, slot=[(0, i) for i in range(length)], segments=["where"])


def page_row(seed: int = 0, *, images: int = 1, lines: int = 3) -> tuple[TokenSequence, dict[str, Any]]:
    """BOS, patches, then for each line its text, a box slot and a newline; a question and an answer."""
    parts = [text(1, 1)]
    features: dict[str, Any] = {}
    if images:
        parts.append(slots("image", images * PATCHES, role=Role.IMAGE))
        features["image"] = pixels(images, seed)
    for line in range(lines):
        parts += [text(3, seed + line), slots("boxes", 1, role=Role.PAGE), text(1, 13)]
    if lines:
        features["boxes"] = boxes(lines, seed)
    parts += [text(2, seed + 7), text(2, seed + 8, weight=1.0)]
    return TokenSequence.join(parts), features


def text_row(length: int = 6, seed: int = 3) -> tuple[TokenSequence, dict[str, Any]]:
    return TokenSequence.join([text(length - 2, seed), text(2, seed + 1, weight=1.0)]), {}


def batch_of(model: Model, rows: Sequence[tuple[TokenSequence, dict[str, Any]]], *, side: str = "right") -> Batch:
    sequences, features = zip(*rows, strict=True)
    return model.collate(sequences, features, side=side)  # type: ignore[arg-type]


class Calls:
    """Counts what goes through an encoder."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.items: list[int] = []
        self._handle = module.register_forward_pre_hook(lambda _, given: self.items.append(len(given[0])))

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.remove()


def mixed_rows() -> list[tuple[TokenSequence, dict[str, Any]]]:
    """A page, plain text, two images and a line, a page without an image."""
    return [page_row(0), text_row(), page_row(2, images=2, lines=1), page_row(4, images=0)]


def close(got: torch.Tensor, expected: torch.Tensor, bound: float = 1e-5) -> None:
    assert got.shape == expected.shape
    assert float((got - expected).detach().abs().max()) <= bound * max(1.0, float(expected.detach().abs().max()))


@torch.no_grad()
def all_logits(model: Model, batch: Batch) -> torch.Tensor:
    return model(**batch, return_loss=False).logits
