"""The fast collator makes the same batch as `sequence.collate` of the joined sequences, in every respect."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.data.loaders.collate import Collator
from vertebra.data.samples.samples import as_sequence
from vertebra.errors import SequenceError, TooLongError
from vertebra.sequence.batch import collate
from vertebra.sequence.tokens import TokenSequence


@st.composite
def vectors(draw, slots: bool = False):
    length = draw(st.integers(1, 6))
    numbers = st.lists(st.integers(0, 3), min_size=length, max_size=length)
    made = {"ids": np.array(draw(numbers), np.int32)}
    if draw(st.booleans()):
        made["weight"] = np.array(draw(numbers), np.float32)
    if draw(st.booleans()):
        made["role"] = np.array(draw(numbers), np.int8)
    if draw(st.booleans()):
        made["type"] = np.array(draw(numbers), np.int8)
    if draw(st.booleans()):
        made["target"] = np.array(draw(numbers), np.int32)
    if draw(st.booleans()):
        made["document"] = np.sort(np.array(draw(numbers)))
        made["document"] = np.unique(made["document"], return_inverse=True)[1]
    if draw(st.booleans()):
        made["block"] = np.array(draw(numbers), np.int8)
    if slots and draw(st.booleans()):
        made["slot"] = np.full((length, 2), -1)
        made["slot"][0] = (0, 0)
        made["segments"] = ("image",)
        made.pop("target", None)
        if "weight" in made:
            made["weight"][0] = 0
    return made


def same(batch, expected) -> None:
    assert set(batch) == set(expected)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert batch[key].dtype == value.dtype, key
            assert torch.equal(batch[key], value), key
        else:
            assert batch[key] == value, key


@settings(max_examples=60)
@given(
    rows=st.lists(st.lists(vectors(slots=True), min_size=1, max_size=3), min_size=1, max_size=4),
    side=st.sampled_from(["right", "left"]),
    multiple_of=st.sampled_from([1, 8]),
)
def test_it_equals_the_general_collator(rows, side, multiple_of):
    joined = []
    for row in rows:
        parts = [as_sequence(made) for made in row]
        joined.append(parts[0] if len(parts) == 1 else TokenSequence.join(parts, new_documents=True))
    expected = collate(joined, pad_id=9, side=side, multiple_of=multiple_of)
    same(Collator(9, side=side, multiple_of=multiple_of)(rows), expected)


def test_the_pad_id_may_be_a_real_token():
    """EOS is often the pad id; the EOS that ends a text keeps its target and its mask."""
    batch = Collator(7, multiple_of=1)([[{"ids": np.array([1, 7])}], [{"ids": np.array([1, 2, 3, 7])}]])
    assert batch.input_ids.tolist() == [[1, 7, 7, 7], [1, 2, 3, 7]]
    assert batch.targets.tolist() == [[1, 7, -100, -100], [1, 2, 3, 7]]
    assert batch.attention_mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch.weights.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_lengths_and_labels():
    rows = [[{"ids": np.arange(5)}], [{"ids": np.arange(3)}]]
    assert Collator(0, multiple_of=8, max_length=6)(rows).length == 6
    with pytest.raises(TooLongError):
        Collator(0, max_length=4)(rows)
    with pytest.raises(SequenceError, match="without a single position"):
        Collator(0)([[{"ids": np.zeros(0, int)}]])
    with pytest.raises(SequenceError, match="no sequences"):
        Collator(0)([])
    with pytest.raises(SequenceError, match="weights must be"):
        Collator(0)([[{"ids": np.arange(2), "weight": np.array([1, -1])}]])
    assert Collator(0)(rows, [[{"label": 1}], [{"label": 0}]])["labels"].tolist() == [1, 0]
    with pytest.raises(SequenceError, match="not packed"):
        Collator(0)([[*rows[0], *rows[1]]], [[{"label": 1}, {"label": 0}]])


def test_features_follow_their_rows():
    def row(count: int):
        slot = np.full((4, 2), -1)
        slot[:count, 0], slot[:count, 1] = 0, np.arange(count)
        return {"ids": np.arange(4), "slot": slot, "segments": ("image",)} if count else {"ids": np.arange(4)}

    collator = Collator(0, features=lambda extra: {"image": np.full((1, 2), extra["value"])} if extra else {})
    batch = collator([[row(2), row(2)], [row(0)], [row(2)]], [[{"value": 1}, {"value": 2}], [{}], [{"value": 3}]])
    assert batch.features["image"]["values"].tolist() == [[1, 1], [2, 2], [3, 3]]
    assert batch.features["image"]["rows"].tolist() == [0, 0, 2]
