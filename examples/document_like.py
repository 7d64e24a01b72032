"""A tiny document model in the manner of DocLayLLM: 196 patches of the page, then for each line its text, the slot of its
box, and a newline; then the question.

    <s> [image × 196] In: Date [box] ¶ 3 May [box] ¶ … What is the date? Out: 3 May </s>
"""

import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from vertebra import Model, load_backbone
from vertebra.model import BoxTables, PatchEncoder, new_part

KEYS = ("Date", "Total", "Name")
VALUES = (("3 May", "12.50", "Ann"), ("9 June", "7.00", "Leo"))


def receipt(model, seed):
    """A page of three keys and their values, a question about one of them, and its answer."""
    values = [VALUES[seed >> at & 1][at] for at in range(3)]
    image, lines = Image.new("RGB", (224, 224), "white"), []
    for at in range(6):
        text, left, top = (KEYS + tuple(values))[at], 20 + 100 * (at // 3), 30 + 40 * (at % 3)
        ImageDraw.Draw(image).text((left, top), text, fill="black")
        lines.append({"text": text, "box": [corner * 1000 // 224 for corner in (left, top, left + 60, top + 15)]})
    question = {"type": "text", "text": f"What is the {KEYS[seed % 3].lower()}?"}
    row = model.render([
        {"role": "user", "content": [{"type": "image"}, {"type": "page", "lines": lines}, question]},
        {"role": "assistant", "content": values[seed % 3]},
    ])  # fmt: skip
    return row, model.prepare({"image": [image], "boxes": [line["box"] for line in lines]})


def main(folder):
    torch.manual_seed(0)
    backbone = load_backbone("tiny-llama2")
    patches = new_part(backbone, PatchEncoder(64), "linear", place="anchored")
    model = Model(backbone, {"image": patches, "boxes": new_part(backbone, BoxTables(16), "linear")})
    rows, features = zip(*(receipt(model, seed) for seed in range(6)), strict=True)
    rows[0].show(backbone.tokenizer)
    batch = model.collate(rows, features)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(50):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step:2d}  loss {loss.item():.3f}") if step % 7 == 0 else None
    model.eval().save(folder, overwrite=True)
    again = Model.load(folder).eval()
    same = torch.equal(model(**batch, logits_to_keep=0).logits, again(**batch, logits_to_keep=0).logits)
    print(f"loss {model(**batch).loss.item():.3f} after 50 steps; saved and reloaded to equal logits: {same}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
