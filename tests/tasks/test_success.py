"""Success is what an action of each episode alone reaches: batched and padded as it is, against the plain way."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tasks.test_squares import model as model  # the fixture
from vertebra.data.encode.chat import ImageFeatures
from vertebra.model.model import Model
from vertebra.sequence.batch import collate
from vertebra.tasks.acting import slots_of
from vertebra.tasks.squares import BINS, Squares, shown, success


@torch.no_grad()
def plain_actions(model: Model, squares: Squares) -> list[tuple[int, ...]]:
    """One row at a time, unpadded, and the logits of every position."""
    features = ImageFeatures(model.parts["image"].encoder.preparation)
    bins = squares.ids[1:]
    found = []
    for number in range(len(squares)):
        sequence = squares.sequence(number) if squares.way.slots else squares.prompt(number)
        batch = collate([sequence], [features(squares.extra(number))], pad_id=0)
        generated: list[int] = []
        while len(generated) < 2:
            logits = model(**batch, return_loss=False, logits_to_keep=0).logits[0]
            if squares.way.slots:
                generated = [int(logits[at - 1, bins].argmax()) for at in slots_of(sequence, "action")]
            else:
                generated.append(int(logits[-1, bins].argmax()))
                batch = batch.append(torch.tensor([[bins[generated[-1]]]]))
        found.append(tuple(generated))
    return found


def numbers(action: tuple[int, ...]) -> np.ndarray:
    """The middles of bins, one action long."""
    return np.array([[(bin + 0.5) / BINS * 2 - 1 for bin in action]])


@pytest.mark.parametrize("way", ["tokens", "parallel"])
def test_success_counts_what_each_action_reaches(model: Model, way: str):
    model.eval()
    squares = Squares(model, 40, seed=3, way=way)
    actions = plain_actions(model, squares)
    expected = sum(e.reached(numbers(a)) for e, a in zip(squares.episodes, actions, strict=True)) / 40
    assert success(model, squares, batch=16) == expected
    assert success(model.train(), squares, batch=40) == expected
    assert model.training
    reply = shown(model, squares, 3)
    for sample, episode, action in zip(reply, squares.episodes, actions, strict=False):
        verdict = "reached" if episode.reached(numbers(action)) else "missed"
        assert sample["answer"] == f"<ACT:{action[0]}> <ACT:{action[1]}> – {verdict}"
        assert Image.open(io.BytesIO(base64.b64decode(sample["image"]))).size == (128, 128)
