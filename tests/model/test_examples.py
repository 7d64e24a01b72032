"""The two examples as a reader runs them: short, trained for 50 steps, saved, reloaded to equal logits."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import torch

from vertebra.model.description import describe
from vertebra.model.model import Model
from vertebra.sequence.tokens import Role

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, folder, capsys):
    """The example's names, and what it printed."""
    names = runpy.run_path(str(EXAMPLES / name))
    names["main"](folder)
    reply = capsys.readouterr().out
    assert "saved and reloaded to equal logits: True" in reply
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", reply)]
    assert losses[0] > 5
    assert losses[-1] < 0.05
    return names


def test_the_vla_like_model_looks_at_its_image(tmp_path, capsys):
    names = run("vla_like.py", tmp_path, capsys)
    model = Model.load(tmp_path).eval()
    rows, features = zip(*(names["episode"](model, place) for place in range(8)), strict=True)
    row = rows[0]
    assert row.slot[:, 0].tolist()[:5] == [-1, 0, 0, 0, 0]
    action = row.role == Role.ACTION
    assert action.sum() == 7
    assert row.weight.tolist() == [0.0] * (len(row) - 8) + [1.0] * 8
    right = float(model(**model.collate(rows, features)).loss.detach())
    shuffled = float(model(**model.collate(rows, features[3:] + features[:3])).loss.detach())
    assert right < 0.05 < 0.5 < shuffled
    camera = describe(tmp_path).parts[0]
    assert (camera.projector, camera.place) == ("gelu3", "anchored")
    assert "dinov2_with_registers" in camera.about
    assert "siglip" in camera.about


def test_the_document_like_model_has_196_patches_and_a_box_a_line(tmp_path, capsys):
    names = run("document_like.py", tmp_path, capsys)
    model = Model.load(tmp_path, inference_mode=True)
    row, features = names["receipt"](model, 1)
    assert row.slot_count("image") == 196
    assert row.slot[1:197, 1].tolist() == list(range(196))
    newline = model.backbone.tokenizer.convert_tokens_to_ids("<0x0A>")
    boxes = [at for at, segment in enumerate(row.slot[:, 0]) if segment == row.segments.index("boxes")]
    assert len(boxes) == len(features["boxes"]) == 6
    for at in boxes:
        assert row.ids[at + 1] == newline
        assert row.slot[at - 1, 0] == -1
        assert (row.role[at - 1 : at + 2] == Role.PAGE).all()
    batch = model.collate([row], [features])
    with torch.no_grad():
        answer = model(**batch, return_loss=False, use_cache=False).logits[0].argmax(-1)
    reply = [int(answer[at - 1]) for at in (row.weight > 0).nonzero()[0]]
    assert reply == row.target[row.weight > 0].tolist()
