"""The masks of steps are views of one buffer; each says exactly what the rule of `visibility` says of the new column."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sequence.samples import batches_of, packed
from vertebra.decode.state.column_facts import ColumnFacts
from vertebra.decode.state.columns import as_batch
from vertebra.decode.state.step_masks import StepMasks
from vertebra.sequence.batch import collate
from vertebra.sequence.masks import AttentionFacts
from vertebra.sequence.tokens import TokenSequence
from vertebra.sequence.visibility import allowed

FACTS = {
    "full": AttentionFacts(kernel="eager"),
    "sliding": AttentionFacts(kernel="eager", window=4),
    "mixed": AttentionFacts(kernel="eager", window=4, layer_types=("full_attention", "sliding_attention")),
}
WINDOWS = {"full_attention": None, "sliding_attention": 4}


def with_holes(batch, seed: int):
    """Padding inside rows too and at their end, as a conversation that goes on after ragged ends has it."""
    generator = np.random.default_rng(seed)
    for row in range(batch.rows):
        if generator.random() < 0.5 and batch.length > 3:
            column = int(generator.integers(1, batch.length))
            batch["attention_mask"][row, column] = 0
            batch["document"][row, column] = -1
            real = batch["attention_mask"][row].bool()
            for document in batch["document"][row].unique().tolist():
                here = real & (batch["document"][row] == document)
                batch["position_ids"][row, here] = torch.arange(int(here.sum()))
    return batch


@given(
    batches_of(packed(branches=False)),
    st.sampled_from(list(FACTS)),
    st.integers(0, 99),
    st.booleans(),
    st.sampled_from([0, 30]),
)
@settings(max_examples=60, deadline=None)
def test_every_step_is_the_rule(rows, kind, seed, holes, room):
    facts = FACTS[kind]
    batch = collate(rows, pad_id=0, side="left")
    if holes:
        batch = with_holes(batch, seed)
    layout = ColumnFacts(batch)
    by_position = facts.windowed and not layout.goes_on_by_column
    static = batch.length + room if room and not by_position else None
    masks = StepMasks(layout, facts, dtype=torch.float32, static_length=static)
    # without a static cache, far enough for the buffer to be made anew twice
    for step in range(6) if static else (*range(6), 60, 61, 97, 98, 150):
        column = batch.length + step
        shown = batch.append(torch.zeros(batch.rows, step + 1, dtype=torch.long))
        given_masks = masks.at(column)
        for name in facts.types:
            mask = given_masks[name] if isinstance(given_masks, dict) else given_masks
            window = WINDOWS[name]
            expected = allowed(shown, window=window, first_query=column)[:, 0]
            if static is not None:
                size = static if window is None else min(window, static)
                first = 0 if window is None else max(column + 1 - window, 0)
                expected = torch.nn.functional.pad(expected, (0, static))[:, first : first + size]
            elif window is not None and not by_position:
                expected = expected[:, max(column + 1 - window, 0) :]
            assert torch.equal(mask[:, 0, 0] == 0, expected), (name, step)


def test_nothing_is_made_where_nothing_is_needed():
    plain = collate([TokenSequence.of(range(5))] * 2, pad_id=0, side="left")
    ragged = collate([TokenSequence.of(range(5)), TokenSequence.of(range(3))], pad_id=0, side="left")

    def masks(batch, **facts):
        return StepMasks(ColumnFacts(batch), AttentionFacts(**facts), dtype=torch.float32)

    assert masks(plain, kernel="sdpa").at(5) is None
    both = {"window": 4, "layer_types": ("full_attention", "sliding_attention")}
    assert masks(plain, kernel="sdpa", **both).at(5) == {"full_attention": None, "sliding_attention": None}
    assert masks(plain, kernel="flash_attention_2").at(5) is None
    assert masks(ragged, kernel="flash_attention_2").at(5).tolist() == [[1] * 6, [0, 0, 1, 1, 1, 1]]
    made = masks(ragged, kernel="sdpa")
    assert made.at(5).untyped_storage().data_ptr() == made.at(40).untyped_storage().data_ptr()


@given(batches_of(packed(branches=False)), st.booleans())
@settings(max_examples=40, deadline=None)
def test_rows_are_moved_to_the_right_end(rows, right):
    """A batch padded to the right is the batch that the collator pads to the left."""

    class Backbone:
        pad_token_id = 0

    given_batch = collate(rows, pad_id=0, side="right" if right else "left")
    moved, layout = as_batch(given_batch, Backbone(), torch.device("cpu"))
    expected = collate(rows, pad_id=0, side="left")
    assert layout.ends_real
    assert moved["segments"] == given_batch["segments"]
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(moved[key], value), key


@pytest.mark.parametrize("side", ["left", "right"])
def test_layout(side):
    rows = [
        TokenSequence.of(range(4)),
        TokenSequence.join([TokenSequence.of(range(2)), TokenSequence.of(range(3))], new_documents=True),
    ]
    layout = ColumnFacts(collate(rows, pad_id=0, side=side))
    assert layout.padded
    assert not layout.plain
    assert layout.next_position.tolist() == [[4], [3]]
    assert layout.last.tolist() == [[4 if side == "left" else 3], [4]]
    assert layout.open.sum(1).tolist() == [4, 3]
    assert layout.longest == 4
    assert ColumnFacts(collate(rows[:1], pad_id=0)).plain
