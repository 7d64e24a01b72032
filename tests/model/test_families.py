"""Every family, beyond its window: images and boxes with a cache cut in the middle of them, and padded to the left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from tests.model.models import PATCHES, batch_of, build, page_row, slots, text, text_row
from vertebra.backbone.tiny import TINY
from vertebra.sequence.batch import Batch
from vertebra.sequence.branches import branched
from vertebra.sequence.loss import sequence_loss
from vertebra.sequence.masks import plan_attention
from vertebra.sequence.probe import mask_takes_effect
from vertebra.sequence.tokens import Role, TokenSequence


def close(got, expected):
    assert float((got - expected).abs().max()) <= 2e-5 * max(1.0, float(expected.abs().max()))


@pytest.fixture(scope="module", params=TINY)
def model(request):
    return build(request.param).eval()


def logits_of(model, batch):
    return model(**batch, return_loss=False, use_cache=False).logits


@torch.no_grad()
def test_cut_and_padded(model):
    """39 positions: beyond a window of 8 four times."""
    rows = [page_row(0, images=3, lines=4), text_row(12), page_row(5, images=1, lines=2)]
    alone = [logits_of(model, batch_of(model, [row]))[0] for row in rows]
    batch = batch_of(model, rows, side="left")
    assert batch.length >= 32
    whole = logits_of(model, batch)
    for row, expected in enumerate(alone):
        close(whole[row][batch.attention_mask[row].bool()], expected)
    injection, cache, parts = model.encode(batch), DynamicCache(config=model.backbone.llm.config), []
    in_the_image, in_the_page = 1 + PATCHES + 2, batch.length - 9
    for stop in (in_the_image, in_the_page, batch.length - 1, batch.length):
        stretch = Batch({key: value[:, :stop] if torch.is_tensor(value) else value for key, value in batch.items()})
        parts.append(model(**stretch, past_key_values=cache, injection=injection).logits)
    stepped = torch.cat(parts, 1)
    for row, expected in enumerate(alone):
        close(stepped[row][batch.attention_mask[row].bool()], expected)


@torch.no_grad()
def test_action_slots_both_ways(model):
    sequence, features = page_row(0, images=1, lines=1)
    row = TokenSequence.join([sequence, slots("action", 6, block=1, role=Role.ACTION), text(1, weight=1.0)])
    batch = batch_of(model, [(row, features)])
    facts = model.backbone.attention_facts
    made = plan_attention(batch, facts)
    assert made.form == "4d"

    def forward(inputs):
        return model.backbone(inputs_embeds=inputs, **made.kwargs, logits_to_keep=0).logits

    embeds = model.embed(batch)
    window = facts.window if set(facts.types) == {"sliding_attention"} else None
    assert mask_takes_effect(forward, embeds, batch, window=window)
    close(logits_of(model, batch), forward(embeds))


def test_the_loss_is_that_of_all_logits(model):
    """Caps, scales and biases of a family's own head hold where it runs on chosen positions alone."""
    batch = batch_of(model, [page_row(0), text_row(12)])
    with torch.no_grad():
        expected = sequence_loss(logits_of(model, batch), batch.targets, batch.weights, document=batch.document)
        close(model(**batch).loss, expected)


def test_rendered_with_the_slots_after_bos(model):
    row = model.render([{"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]}])
    first = int(row.slot[0, 0] < 0)
    assert row.slot[first : first + PATCHES, 1].tolist() == list(range(PATCHES))
    assert not first or row.ids[0] == model.backbone.tokenizer.bos_token_id
    assert first == (model.backbone.anchor != "none")


def test_branches_are_their_rows(model):
    """Logits and loss of three rows about one page, and those of one row with three branches, beyond a window of 8."""
    trunk, features = page_row(0, images=1, lines=4)
    trunk = trunk.with_vectors(weight=np.zeros(len(trunk)))
    tails = [text(count, 7 * count, weight=1.0) for count in (3, 12, 1)]
    alone = [(TokenSequence.join([trunk, tail]), features) for tail in tails]
    apart, one = batch_of(model, alone), batch_of(model, [(branched(trunk, tails), features)])
    with torch.no_grad():
        rows, row, first = logits_of(model, apart), logits_of(model, one)[0], len(trunk)
        close(row[:first], rows[0, :first])
        for number, tail in enumerate(tails):
            close(row[first : first + len(tail)], rows[number, len(trunk) : len(trunk) + len(tail)])
            first += len(tail)
        # what nobody predicts is the first of each tail, which a row alone predicts from the page
        apart["weights"][:, len(trunk)] = 0
        close(model(**one).loss, model(**apart).loss)
