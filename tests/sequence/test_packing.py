"""Packing against plain best fit; nothing lost, nothing twice."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.errors import SequenceError, TooLongError, UnknownNameError
from vertebra.sequence.packing import join_features, pack, pack_sequences
from vertebra.sequence.tokens import Role, TokenSequence

from .samples import samples


def plain_best_fit(lengths, capacity):
    """How full each row gets: longest first, each into the fullest row with room."""
    rows: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [r for r, filled in enumerate(rows) if filled + length <= capacity]
        if fitting:
            rows[max(fitting, key=lambda r: rows[r])] += length
        else:
            rows.append(length)
    return sorted(rows)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20), max_size=60), st.integers(20, 40))
def test_pack_is_best_fit(lengths, capacity):
    rows = pack(lengths, capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert sorted(sum(lengths[i] for i in row) for row in rows) == plain_best_fit(lengths, capacity)
    assert pack(lengths, capacity) == rows


def log_normal(count: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).lognormal(np.log(120), 0.8, count)
    return np.clip(drawn.astype(int), 1, 1024)


def test_slots_per_useful_token():
    """The promised 1.01: counted, not timed."""
    lengths = log_normal(5000)
    useful = int(lengths.sum())
    assert len(pack(lengths, 1024)) * 1024 / useful <= 1.01


@settings(max_examples=25, deadline=None)
@given(st.lists(samples(), min_size=1, max_size=12))
def test_packed_rows_are_their_samples(sequences):
    capacity = max(24, max(map(len, sequences)))
    packing = pack_sequences(sequences, capacity)
    assert sorted(i for row in packing.members for i in row) == list(range(len(sequences)))
    for row, members in zip(packing.rows, packing.members, strict=True):
        assert len(row) <= capacity
        assert row == TokenSequence.join([sequences[i] for i in members], new_documents=True)
        start = 0
        for document, i in enumerate(members):
            part = row.cut(start, start + len(sequences[i]))
            assert part.ids.tolist() == sequences[i].ids.tolist()
            assert part.position.tolist() == sequences[i].position.tolist()
            assert set(part.document.tolist()) == {document}
            start += len(part)


def test_features_travel_with_their_samples():
    def sample(n: int) -> TokenSequence:
        return TokenSequence.of([1] * 4, slot=[(0, k) if k < n else (-1, -1) for k in range(4)], segments=["boxes"])

    items = [{"boxes": np.full((n, 4), i)} for i, n in enumerate([1, 3, 2])]
    packing = pack_sequences([sample(1), sample(3), sample(2)], 12, features=items)
    (row,), (joined,) = packing.rows, packing.features
    assert row.slot_count("boxes") == len(joined["boxes"]) == 6
    assert joined["boxes"][:, 0].tolist() == [0, 1, 1, 1, 2, 2]
    assert join_features([{}, {}]) == {}
    with pytest.raises(SequenceError, match="1 rows of features for 2"):
        pack_sequences([sample(1), sample(1)], 8, features=[{}])


LONG = TokenSequence.of(range(12), role=Role.USER, weight=[0] * 4 + [1] * 2 + [0] * 6)
SHORT = TokenSequence.of([1, 2])


def test_too_long_is_an_error_unless_a_choice_is_named(caplog):
    with pytest.raises(TooLongError, match=r"sequence 1 has 12 positions \(12 tokens\), 4 more than the capacity of 8"):
        pack_sequences([SHORT, LONG], 8)
    with caplog.at_level(logging.WARNING, "vertebra"):
        packing = pack_sequences([SHORT, LONG], 8, too_long="drop")
        assert (packing.dropped, packing.members) == ([1], [[0]])
        packing = pack_sequences([SHORT, LONG], 8, too_long="cut")
    assert packing.cut == {1: 4}
    assert sum(row.supervised for row in packing.rows) == 2
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    with pytest.raises(TooLongError, match="sequence 1: the sequence has 12 positions"):
        pack_sequences([SHORT, LONG], 5, too_long="cut")
    with pytest.raises(UnknownNameError, match="Did you mean `cut`"):
        pack_sequences([SHORT], 8, too_long="cutt")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lengths", "capacity", "error", "says"),
    [
        ([3, 0], 8, SequenceError, "length 0 at index 1"),
        ([3, 9], 8, TooLongError, "index 1 has length 9"),
        ([3], 0, SequenceError, "capacity of 0"),
    ],
)
def test_what_cannot_be_packed(lengths, capacity, error, says):
    with pytest.raises(error, match=says):
        pack(lengths, capacity)
    with pytest.raises(SequenceError, match="cannot be packed: 1"):
        pack_sequences([SHORT, TokenSequence.of([])], 4)


@pytest.mark.parametrize("capacity", [0, -1, 2.5, "8"])
def test_a_capacity_that_is_none(capacity):
    with pytest.raises(SequenceError, match="capacity of"):
        pack([1], capacity)
