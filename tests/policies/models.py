"""Tiny policies with random weights, of every layout; statistics of two made-up robots."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from vertebra.action.bins import uniform_bins
from vertebra.action.counting import Counter
from vertebra.action.record import POLICY, ActionRecord
from vertebra.action.statistics import DatasetStatistics
from vertebra.action.tokens import action_tokens, token_ids
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.encoders.vector import VectorEncoder
from vertebra.model.fresh import new_flow, new_l1, new_part, new_queries
from vertebra.model.model import Model

SIZE, DIMS = 28, 3
TASK = "Pick up the {cup}"


def counted(dims: int, proprio: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    parts = []
    for width in (dims, proprio):
        counter = Counter(width)
        counter.add(rng.normal(size=(200, width)) * np.arange(1, width + 1) + seed)
        parts.append(counter)
    mask = [True] * (dims - 1) + [False]
    made = DatasetStatistics(action=parts[0].moments(mask=mask), proprio=parts[1].moments(), quantiles="exact")
    return made.to_json()


STATISTICS = {"bridge": counted(DIMS, 4, 1), "fractal": counted(DIMS, 4, 2)}


def record_of(ids: tuple[int, ...], **changes: Any) -> ActionRecord:
    given: dict[str, Any] = {
        "head": "tokens", "dims": DIMS, "bins": uniform_bins(ids[1:]).to_json(), "lead": ids[:1], "statistics": STATISTICS,
    }  # fmt: skip
    return ActionRecord(**{**given, **changes})


@cache
def model_of(name: str = "tiny-llama2", *, place: str = "slots", proprio: bool = False) -> Model:
    """A model that can be any policy; to be read and run, and left as it was."""
    torch.manual_seed(0)
    backbone = load_backbone(name, dtype="float32")
    grow_vocabulary(backbone, action_tokens(8))
    camera = PatchEncoder(16, image_size=SIZE, patch_size=14)
    parts: dict[str, Any] = {
        "image": new_part(backbone, camera, "gelu2", place=place),  # type: ignore[arg-type]
        "action": new_queries(backbone, 64),
    }
    if proprio:
        parts["proprio"] = new_part(backbone, VectorEncoder(4))
    return Model(backbone, parts).eval()


@cache
def head_of(kind: str, name: str, chunk: int) -> tuple[Any, Any]:
    """A head that gives numbers, with random weights, behind `model_of(name)`, and the queries of its slots."""
    backbone = model_of(name).backbone
    torch.manual_seed(1)
    if kind == "l1":
        head: Any = new_l1(backbone, chunk=chunk, dims=DIMS)
    else:
        head = new_flow(backbone, chunk=chunk, dims=DIMS, width=16, inner=24, steps=4, delay=2)
    for parameter in head.parameters():  # a fresh head may give zeros
        torch.nn.init.normal_(parameter, std=0.2)
    return head, new_queries(backbone, head.slots)


def policy_model(name: str = "tiny-llama2", *, place: str = "slots", proprio: bool = False, **changes: Any) -> Model:
    """The same with a record of its own."""
    model = model_of(name, place=place, proprio=proprio)
    heads, parts = {}, dict(model.parts)
    if changes.get("head") in ("l1", "flow"):
        heads["action"], parts["action"] = head_of(changes["head"], name, changes.get("chunk", 1))
        changes = {"bins": None, **changes}
    ids = token_ids(model.tokenizer.get_vocab(), action_tokens(8))
    if proprio:
        changes.setdefault("proprio", 4)
    record = record_of(ids, **changes)
    return Model(model.backbone, parts, record={POLICY: record.to_json()}, heads=heads).eval()


def image(seed: int = 0, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def seen(seed: int = 0, *cameras: str, proprio: bool = False) -> dict[str, Any]:
    """An observation."""
    given: dict[str, Any] = {"images": {name: image(seed + n) for n, name in enumerate(cameras or ("image",))}}
    if proprio:
        given["proprio"] = np.random.default_rng(seed).normal(size=4)
    return given
