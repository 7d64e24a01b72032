"""Small models for these tests: tiny backbones, and one with the parts of a multimodal model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vertebra.backbone.registry import load_backbone
from vertebra.model.encoders.boxes import BoxTables
from vertebra.model.encoders.part import Part
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.encoders.queries import Queries
from vertebra.model.encoders.vision import VisionTower
from vertebra.model.encoders.vision.tiny import tiny_vision_checkpoint
from vertebra.model.fresh import new_part, new_queries
from vertebra.model.model import Model
from vertebra.model.projectors import Projector
from vertebra.sequence.batch import Batch, collate
from vertebra.sequence.tokens import TokenSequence


def backbone(name: str = "tiny-llama2", **options: Any) -> Any:
    return load_backbone(name, **{"dtype": "float32", **options})


def with_parts(name: str = "tiny-llama2") -> Model:
    """A backbone that sees images through an encoder and a projector, and fills action slots from learned queries."""
    torch.manual_seed(0)
    language = backbone(name)
    width = language.embedding_width
    image = Part(PatchEncoder(16, image_size=8, patch_size=4), Projector("gelu2", 16, width))
    return Model(language, {"image": image, "action": Queries(2, width)})


def with_all_kinds(name: str = "tiny-llama2") -> Model:
    """A pretrained vision tower, boxes that are made from scratch, and learned queries, before any family."""
    torch.manual_seed(0)
    language = backbone(name)
    tower = VisionTower.load(tiny_vision_checkpoint("tiny-siglip"))
    parts = {"image": new_part(language, tower), "box": new_part(language, BoxTables(4), "linear")}
    return Model(language, {**parts, "action": new_queries(language, 2)})


def row_of_all_kinds(model: Model) -> Batch:
    """One row with an item of every part, words, and a new token where there is one."""
    new = "".join(f" {token}" for growth in model.backbone.growths for token in growth.tokens if not growth.is_pad)
    words = model.backbone.tokenizer("Pick up the red block." + new).input_ids
    slots = [(n, i) for n, part in enumerate(model.parts.values()) for i in range(part.slots)]
    ids = [words[-1]] * len(slots) + words
    row = TokenSequence.of(
        ids, weight=[0.0] * len(slots) + [1.0] * len(words), slot=[*slots, *[(-1, -1)] * len(words)],
        segments=tuple(model.parts),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    items = {n: p.encoder.sample(1, generator).numpy() for n, p in model.parts.items() if hasattr(p, "encoder")}
    return collate([row], [items], pad_id=model.backbone.pad_token_id)


def batch_for(model: Model) -> Batch:
    """One row: BOS, four image slots, words, two action slots."""
    words = model.backbone.tokenizer("Pick up the red block.").input_ids
    ids = [words[0], *[0] * 4, *words[1:], 0, 0]
    slot = [(-1, -1)] * len(ids)
    slot[1:5] = [(0, i) for i in range(4)]
    slot[-2:] = [(1, 0), (1, 1)]
    weight = [0.0] * 5 + [1.0] * (len(words) - 1) + [0.0, 0.0]
    target = [*ids[:-2], words[1], words[2]]
    weight[-1] = 1.0
    row = TokenSequence.of(ids, target=target, weight=weight, slot=slot, segments=("image", "action"))
    generator = torch.Generator().manual_seed(0)
    pixels = model.parts["image"].encoder.sample(1, generator)
    return collate([row], [{"image": pixels.numpy()}], pad_id=model.backbone.pad_token_id)


def some_ids(backbone: Any, text: str = "Pick up the red block, then stop.") -> torch.Tensor:
    return torch.tensor([backbone.tokenizer(text).input_ids])


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def train_a_little(model, steps: int = 3) -> None:
    """Real steps, so that B is no longer zero and new rows have moved."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    torch.manual_seed(0)  # GPT-2 has dropout
    text = "Pick up" + "".join(f" {t}" for g in model.growths if not g.is_pad for t in g.tokens) + " the red block"
    ids = some_ids(model, text)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    model.eval()


def expected_logits(folder: Path) -> list[torch.Tensor]:
    """What the model gave when the adapter was saved."""
    return torch.load(folder.parent / "logits.pt")
