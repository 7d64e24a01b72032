"""The loss against one that walks over positions, in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.errors import SequenceError
from vertebra.sequence.batch import collate
from vertebra.sequence.loss import count_items, sequence_loss, supervised_positions, token_losses
from vertebra.sequence.tokens import NO_TARGET, TokenSequence

from .samples import batches_of, packed, samples

VOCABULARY = 41


def plain_loss(logits, sequences, side, *, shift=True, num_items=None, label_smoothing=0.0, z_loss=0.0):
    """Position by position, from the sequences themselves. None where nothing is supervised."""
    total = items = 0.0
    for row, sequence in enumerate(sequences):
        offset = logits.shape[1] - len(sequence) if side == "left" else 0
        for i in range(len(sequence)):
            if sequence.weight[i] <= 0 or sequence.target[i] == NO_TARGET:
                continue
            if shift and (i == 0 or sequence.document[i] != sequence.document[i - 1]):
                continue
            if shift and sequence.block[i] < 0 and sequence.block[i] != sequence.block[i - 1]:
                continue  # a branch begins
            scores = logits[row, offset + i - shift].double().tolist()
            log_sum = math.log(sum(math.exp(score) for score in scores))
            surprise = [log_sum - score for score in scores]
            even = sum(surprise) / len(surprise)
            loss = (1 - label_smoothing) * surprise[sequence.target[i]] + label_smoothing * even + z_loss * log_sum**2
            total += float(sequence.weight[i]) * loss
            items += float(sequence.weight[i])
    if num_items is None and not items:
        return None
    return total / (items if num_items is None else num_items)


def made_for(sequences, side="right", seed=0, **options):
    # a slot may carry a weight of 0 only, and the samples see to that
    batch = collate(sequences, pad_id=0, side=side, **options)
    generator = torch.Generator().manual_seed(seed)
    return batch, torch.randn(batch.rows, batch.length, VOCABULARY, generator=generator, dtype=torch.float64)


options = st.fixed_dictionaries(
    {
        "shift": st.booleans(),
        "num_items": st.sampled_from([None, 7.0]),
        "label_smoothing": st.sampled_from([0.0, 0.1]),
        "z_loss": st.sampled_from([0.0, 0.01]),
    }
)


@settings(max_examples=50, deadline=None)
@given(batches_of(packed()), st.sampled_from(["right", "left"]), options)
def test_loss_is_the_plain_one_on_all_logits_and_on_selected_ones(sequences, side, choice):
    batch, logits = made_for(sequences, side)
    expected = plain_loss(logits, sequences, side, **choice)
    rest = {name: value for name, value in choice.items() if name != "shift"}
    at = supervised_positions(batch, shift=choice["shift"])
    if expected is None:
        with pytest.raises(SequenceError, match="no supervised position"):
            at.loss(at.select(logits), **rest)
        return
    full = sequence_loss(logits, batch.targets, batch.weights, document=batch.document, block=batch.block, **choice)
    assert float(full) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert torch.equal(at.loss(at.select(logits), **rest), full)
    assert float(at.weights.sum()) == pytest.approx(float(count_items(batch, shift=choice["shift"])))


@settings(max_examples=30, deadline=None)
@given(st.lists(samples(blocks=False), min_size=2, max_size=4))
def test_packed_rows_cost_what_their_samples_cost(sequences):
    """No document's first token is predicted from the document before it."""
    batch, logits = made_for(sequences)
    row = collate([TokenSequence.join(sequences, new_documents=True)], pad_id=0)
    joined = torch.cat([logits[i, : len(sequence)] for i, sequence in enumerate(sequences)])[None]
    losses = [
        sequence_loss(scores, part.targets, part.weights, document=part.document, num_items=1.0)
        for scores, part in ((logits, batch), (joined, row))
    ]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-9, abs=1e-12)
    assert float(count_items(batch)) == float(count_items(row))


def test_the_first_position_and_padding_never_count():
    sequences = [TokenSequence.of([1, 2, 3], weight=1.0), TokenSequence.of([4], weight=1.0)]
    for side in ("right", "left"):
        at = supervised_positions(collate(sequences, pad_id=4, side=side))
        assert at.targets.tolist() == [2, 3]
        assert (at.rows.tolist(), at.columns.tolist()) == ([0, 0], [0, 1])
    assert supervised_positions(collate(sequences, pad_id=4), shift=False).targets.tolist() == [1, 2, 3, 4]


def test_micro_batches_add_up_to_the_large_batch():
    sequences = [TokenSequence.of(range(n), weight=[0.5] * n) for n in (3, 9, 5, 2)]
    batch, logits = made_for(sequences)
    whole = sequence_loss(logits, batch.targets, batch.weights, document=batch.document)
    items = count_items(batch)
    parts = [
        sequence_loss(logits[rows], part.targets, part.weights, document=part.document, num_items=items)
        for rows in ([0, 2], [1], [3])
        for part in [batch.select(rows)]
    ]
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-6)


def test_what_is_not_supervised_can_hold_nan():
    """Neither the loss nor a gradient sees it."""
    batch, logits = made_for([TokenSequence.of(range(6), weight=[0, 0, 0, 1, 1, 0])])
    logits[0, [0, 1, 4, 5]] = float("nan")
    logits.requires_grad_()
    loss = sequence_loss(logits, batch.targets, batch.weights, document=batch.document)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad.abs().sum(-1) > 0).tolist() == [[False, False, True, True, False, False]]


def test_tiny_weights_and_half_precision():
    batch, logits = made_for([TokenSequence.of(range(4), weight=1e-30)])
    even = made_for([TokenSequence.of(range(4), weight=1.0)])[0]
    tiny = sequence_loss(logits, batch.targets, batch.weights)
    assert float(tiny) == pytest.approx(float(sequence_loss(logits, even.targets, even.weights)))
    large = (logits * 2000).half()  # their exponentials overflow half precision
    assert torch.isfinite(sequence_loss(large, even.targets, even.weights, z_loss=1e-4))
    assert sequence_loss(large, even.targets, even.weights).dtype == torch.float32


def test_nothing_supervised():
    batch, logits = made_for([TokenSequence.of(range(4)), TokenSequence.of([1], weight=1.0)])
    with pytest.raises(SequenceError, match=r"no supervised position in this batch.*Check that answers"):
        sequence_loss(logits, batch.targets, batch.weights, document=batch.document)
    for none in (0, torch.tensor(0.0)):
        with pytest.raises(SequenceError, match="whole accumulated batch"):
            sequence_loss(logits, batch.targets, batch.weights, document=batch.document, num_items=none)
    # other micro-batches have something: this one adds an exact 0 and lets gradients pass
    logits.requires_grad_()
    loss = sequence_loss(logits, batch.targets, batch.weights, document=batch.document, num_items=3)
    loss.backward()
    assert loss.item() == 0.0
    assert float(logits.grad.abs().sum()) == 0.0


def test_shapes_and_ids_that_do_not_fit():
    batch, logits = made_for([TokenSequence.of([1, 2, 60], weight=1.0)])
    with pytest.raises(SequenceError, match="target 60 is no row of the head, which has 41"):
        sequence_loss(logits, batch.targets, batch.weights)
    with pytest.raises(SequenceError, match=r"expected \[B, L, V\]"):
        sequence_loss(logits[:, 1:], batch.targets, batch.weights)
    at = supervised_positions(batch)
    with pytest.raises(SequenceError, match="for 2 supervised positions"):
        at.loss(logits[0])
    with pytest.raises(SequenceError, match="label_smoothing is 1"):
        token_losses(logits[0], batch.targets[0], label_smoothing=1)
    with pytest.raises(SequenceError, match="z_loss is -1"):
        token_losses(logits[0], batch.targets[0], z_loss=-1)
