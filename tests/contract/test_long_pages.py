"""A page of a thousand lines, each words, a box and a line end: read in one pass, in pieces, beside a shorter page, and
answered from; on every family, equal to a plain loop that puts one vector after the other."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from tests.contract.long import LONG, is_greedy, long_model
from tests.model.models import boxes, close
from vertebra.decode.call import generate
from vertebra.model.encoders.boxes import BoxTables
from vertebra.model.fresh import new_part
from vertebra.model.model import Model
from vertebra.sequence.tokens import Role, TokenSequence

LINES = 1000
A_LINE = 3
"""Positions of a line: a word, the box's slot, the line's end."""
ANSWER = 24


@cache
def reader(name: str) -> Model:
    """A model that reads boxes, with positions for the page and what is said of it."""
    backbone = long_model(name, positions=A_LINE * LINES + 200)
    torch.manual_seed(0)
    return Model(backbone, {"boxes": new_part(backbone, BoxTables(8), "linear")}).eval()


def page(lines: int, seed: int = 0) -> tuple[TokenSequence, dict[str, Any]]:
    words = np.random.default_rng(seed).integers(10, 90, lines)
    parts = [TokenSequence.of([1])]
    for word in words:
        parts += [
            TokenSequence.of([word]),
            TokenSequence.of([5], slot=[(0, 0)], segments=["boxes"], role=Role.PAGE),
            TokenSequence.of([13]),
        ]
    parts.append(TokenSequence.of([40, 41, 42]))
    return TokenSequence.join(parts), {"boxes": boxes(lines, seed)}


@torch.no_grad()
def plainly(model: Model, sequence: TokenSequence, features: dict[str, Any], generated: list[int]) -> torch.Tensor:
    """[T, V]: logits before each token that was said, from one pass over vectors laid out one by one."""
    table = model.backbone.llm.get_input_embeddings()
    embedded = table(torch.tensor([*sequence.ids.tolist(), *generated]))
    part = model.parts["boxes"]
    vectors = part.projector(part.encoder(torch.tensor(np.asarray(features["boxes"]))))[:, 0]
    line = 0
    for at, (segment, _) in enumerate(sequence.slot.tolist()):
        if segment >= 0:
            embedded[at] = vectors[line]
            line += 1
    assert line == len(vectors)
    logits = model.backbone.llm(inputs_embeds=embedded[None], use_cache=False).logits[0]
    return logits[len(sequence) - 1 : len(sequence) - 1 + len(generated)].float()


@pytest.mark.parametrize("name", LONG)
def test_a_thousand_lines(name: str):
    model = reader(name)
    sequence, features = page(LINES)
    assert len(sequence) > A_LINE * LINES
    result = generate(
        model, model.collate([sequence], [features]), max_new_tokens=ANSWER, eos_token_id=(), output_logits=True
    )
    generated = result.tokens[0]
    plain = plainly(model, sequence, features, generated)
    close(torch.stack([logits[0] for logits in result.logits]), plain, 5e-5)
    is_greedy(generated, plain)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gemma3", "tiny-opt"])
def test_pages_of_other_lengths_beside_it_and_passes_in_pieces(name: str):
    """Left padding of two thousand columns, and pieces whose edges fall inside lines."""
    model = reader(name)
    pages = [page(LINES), page(LINES - 1, 1), page(LINES // 3, 2), page(0, 3)]
    batch = model.collate(*zip(*pages, strict=True), side="left")
    for options in ({}, {"chunk": 256}, {"chunk": 1000}, {"cache": "static"}):
        result = generate(model, batch, max_new_tokens=6, eos_token_id=(), output_logits=True, **options)
        for row, (sequence, features) in enumerate(pages):
            plain = plainly(model, sequence, features, result.tokens[row])
            close(torch.stack([logits[row] for logits in result.logits]), plain, 5e-5)


@pytest.mark.parametrize("line", [0, 1, LINES // 2, LINES - 1])
def test_every_line_has_its_own_box(line: int):
    """A box that moves changes what follows it, and nothing before."""
    model = reader("tiny-llama2")
    sequence, features = page(LINES)
    moved = {"boxes": features["boxes"].copy()}
    moved["boxes"][line] = (
        [0, 0, 1000, 1000] if features["boxes"][line].tolist() != [0, 0, 1000, 1000] else [0, 0, 1, 1]
    )
    batches = [model.collate([sequence], [each]) for each in (features, moved)]
    with torch.no_grad():
        before, after = (model(**batch, return_loss=False).logits[0] for batch in batches)
    slot = 1 + A_LINE * line + 1
    changed = (before != after).any(-1)
    assert not changed[:slot].any()
    assert changed[slot : slot + 3].all()
