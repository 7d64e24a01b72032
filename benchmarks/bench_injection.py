"""What injection costs, as a share of a 10 M model's prefill of 320 positions; one thread, process CPU time.

    place     from what the encoders made to the table of where it goes (with every check)
    inject    256 patches and 4 box slots into the token embeddings
    model     `Model.forward`, all of it but the encoders, beside the bare language model on ready embeddings

Both sides are measured in turn, and the A/A line shows how steady the ratio is. The encoders are the model's own work,
and are listed by themselves.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np
import torch

from timing import in_turn, paired_ratio
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import write_tiny
from vertebra.model.encoders.boxes import BoxTables
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.encoding import encode_items
from vertebra.model.fresh import new_part
from vertebra.model.inject import inject, place
from vertebra.model.model import Model
from vertebra.sequence.batch import Batch
from vertebra.sequence.tokens import TokenSequence

POSITIONS, PATCHES, BOXES = 320, 256, 4


def ten_million(folder: str) -> Model:
    shape = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 9}
    backbone = load_backbone(write_tiny("tiny-llama2", folder, overwrite=True, **shape), builder="pure")
    parts = {
        "image": new_part(backbone, PatchEncoder(256, image_size=224, patch_size=14), "gelu2"),
        "boxes": new_part(backbone, BoxTables(32), "linear"),
    }
    return Model(backbone, parts).eval()


def batch_of(model: Model, rows: int, *, images: bool = True) -> Batch:
    rng = np.random.default_rng(0)
    text = TokenSequence.of(rng.integers(10, 900, POSITIONS - images * (PATCHES + BOXES)))
    if not images:
        return model.collate([text] * rows)
    slots = [
        TokenSequence.of([5] * count, slot=[(0, i) for i in range(count)], segments=[name])
        for name, count in (("image", PATCHES), ("boxes", BOXES))
    ]
    corners = np.sort(rng.integers(0, 1001, (BOXES, 2, 2)), axis=1).reshape(BOXES, 4)
    features = {"image": rng.integers(0, 256, (1, 3, 224, 224), dtype=np.uint8), "boxes": corners}
    return model.collate([TokenSequence.join([*slots, text])] * rows, [features] * rows)


def items_of(model: Any, batch: Batch) -> Any:
    return encode_items(model.parts, batch, model.device, model.backbone.embed_input_ids)


@torch.inference_mode()
def shares(model: Model, rows: int) -> None:
    batch = batch_of(model, rows)
    llm, width = model.backbone.llm, model.backbone.embedding_width
    encoded = items_of(model, batch)
    table = place(batch, encoded, width=width)
    tokens = model.backbone.embed_input_ids(batch.input_ids)
    ready = inject(tokens, table)
    positions = batch.position_ids

    def prefill() -> Any:
        return llm(inputs_embeds=ready, position_ids=positions, use_cache=True, logits_to_keep=1)

    works = {
        "prefill": prefill,
        "again": prefill,
        "place": lambda: place(batch, encoded, width=width),
        "inject": lambda: inject(tokens, table),
        "encoders": lambda: items_of(model, batch),
        "a step beyond it": lambda: inject(tokens[:, -1:], table, start=POSITIONS),
    }
    taken = in_turn(works, rounds=9, repeats=max(1, 4 // rows), clock=time.process_time)
    print(f"{rows} rows of {POSITIONS} positions, {PATCHES} patches and {BOXES} boxes each")
    print(f"  {'prefill':18s} {taken['prefill'] * 1e3:8.3f} ms")
    for name in ("place", "inject", "a step beyond it", "encoders"):
        print(f"  {name:18s} {taken[name] * 1e3:8.3f} ms   {100 * taken[name] / taken['prefill']:6.2f} %")
    both = taken["place"] + taken["inject"]
    print(f"  {'place + inject':18s} {both * 1e3:8.3f} ms   {100 * both / taken['prefill']:6.2f} %   (goal: at most 5)")
    print(f"  {'A/A':18s} {'':11s}   {taken['again'] / taken['prefill']:6.2f}")


@torch.inference_mode()
def whole(model: Model, rows: int, *, images: bool) -> None:
    batch = batch_of(model, rows, images=images)
    injection = model.encode(batch)
    ready = model.embed(batch, injection=injection)
    positions = batch.position_ids

    def ours() -> Any:
        return model(**batch, injection=injection, use_cache=True, logits_to_keep=1)

    def bare() -> Any:
        return model.backbone.llm(inputs_embeds=ready, position_ids=positions, use_cache=True, logits_to_keep=1)

    ratio, control = paired_ratio(ours, bare, rounds=9), paired_ratio(bare, bare, rounds=9)
    said = "with an image each" if images else "text alone"
    print(f"  {rows} rows, {said:20s} model beside bare language model {ratio:.3f} x   (A/A {control:.3f})")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = ten_million(folder)
        size = sum(parameter.numel() for parameter in model.backbone.parameters()) / 1e6
        print(f"a language model of {size:.1f} M parameters, fp32")
        for rows in (1, 4):
            shares(model, rows)
        for rows in (1, 4):
            for images in (True, False):
                whole(model, rows, images=images)
