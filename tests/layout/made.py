"""Models that read pages, tiny and of several families, and pages for them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from PIL import Image

from vertebra.backbone.registry import load_backbone
from vertebra.layout import PageRecord
from vertebra.model import BoxTables, BoxWaves, PatchEncoder, new_part
from vertebra.model.model import Model
from vertebra.page import Document, Line, Page

WORDS = ("Total", "Tax", "9.50", "Invoice", "No.", "4711", "Date", "12/03/2024", "Café", "合計", "RM", "</s>", "a.b,c")
SIDE = 28


def document(seed: int, pages: int = 1, lines: int = 5, *, boxes: float = 0.9) -> Document:
    """Lines at any place, some of them without a box."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(1, pages + 1):
        found = []
        for _ in range(lines):
            left, top = draw.integers(0, 300), draw.integers(0, 380)
            box = (left, top, left + draw.integers(5, 90), top + draw.integers(5, 15))
            text = " ".join(draw.choice(WORDS, draw.integers(1, 4)))
            found.append(Line(text, tuple(map(float, box)) if draw.random() < boxes else None))
        made.append(Page.of(found, size=(400, 400), number=number))
    return Document(tuple(made))


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))


@cache
def model(name: str, manner: str, *, patches: bool = False, boxes: str = "line") -> Model:
    """To be read and run, and left as it was."""
    record = PageRecord(manner=manner, image=patches, boxes=boxes)
    backbone = load_backbone(name, dtype="float32", inference_mode=True, weights=True)
    torch.manual_seed(1)
    parts = {}
    if patches:
        encoder = PatchEncoder(16, image_size=SIDE, patch_size=14)
        parts["image"] = new_part(backbone, encoder, "linear", place="anchored")
    if record.how.boxes:
        encoder = BoxTables(4) if manner == "doclaylm" else BoxWaves(4)
        parts["boxes"] = new_part(backbone, encoder, "linear", place=record.how.place)
    return Model(backbone, parts, record={"page": record.to_json()}).eval()
