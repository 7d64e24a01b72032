"""A tiny vision-language-action model in the manner of OpenVLA: two towers see the same image, side by side in each patch,
a three-layer projector brings them to the language model right after BOS, and the answer is seven action tokens.

    <s> [image × 4] In: What action … to reach the bar? Out: ▁ a1 a2 … a7 </s>

Run it: python examples/vla_like.py [FOLDER]
"""

import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from vertebra import Model, load_backbone
from vertebra.model import FusedTowers, VisionTower, new_part, tiny_vision_checkpoint

QUESTION = "What action should the robot take to reach the bar?"
FIRST_ACTION = 900  # in OpenVLA the last 256 ids of the vocabulary; here its last few


def episode(model, place):
    """One frame with a bar at `place` (0..7), and the action that reaches it."""
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).rectangle((place * 8, 0, place * 8 + 7, 63), fill="blue")
    action = [FIRST_ACTION + (place + joint) % 8 for joint in range(7)]
    row = model.render([
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": [{"type": "action", "ids": action}]},
    ])  # fmt: skip
    return row, model.prepare({"image": [image]})


def main(folder):
    torch.manual_seed(0)
    backbone = load_backbone("tiny-llama2")
    towers = FusedTowers([VisionTower.load(tiny_vision_checkpoint(name)) for name in ("tiny-dinov2", "tiny-siglip")])
    towers.requires_grad_(False)
    model = Model(backbone, {"image": new_part(backbone, towers, "gelu3", place="anchored")})
    rows, features = zip(*(episode(model, place) for place in range(8)), strict=True)
    rows[0].show(backbone.tokenizer)
    batch = model.collate(rows, features)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=3e-3)
    for step in range(50):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step:2d}  loss {loss.item():.3f}") if step % 7 == 0 else None
    model.eval().save(folder, overwrite=True)
    again = Model.load(folder).eval()
    same = torch.equal(model(**batch, logits_to_keep=0).logits, again(**batch, logits_to_keep=0).logits)
    print(f"loss {model(**batch).loss.item():.3f} after 50 steps; saved and reloaded to equal logits: {same}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
