"""Rows that begin alike, as one row of branches: what each says is what it says alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.errors import SequenceError
from vertebra.sequence.batch import collate
from vertebra.sequence.branches import branched, tail_of
from vertebra.sequence.tokens import TokenSequence
from vertebra.sequence.visibility import allowed

from .samples import samples

ONE = samples(blocks=False, most=2)


@settings(max_examples=50, deadline=None)
@given(ONE, st.lists(ONE, min_size=1, max_size=4), st.sampled_from([None, 1, 3]), st.sampled_from(["right", "left"]))
def test_a_branch_is_its_row(trunk, tails, window, side):
    """Ids, slots, positions, and who sees whom, window and all."""
    alone = [TokenSequence.join([trunk, tail]) for tail in tails]
    together = branched(trunk, [tail_of(row, len(trunk)) for row in alone])
    assert len(together) == len(trunk) + sum(map(len, tails))
    table = allowed(collate([together], pad_id=0, side=side), window=window)[0]
    items = [
        [name for row in (trunk, *tails) for name, index in _slots(row) if index >= 0],
        [name for name, index in _slots(together) if index >= 0],
    ]
    assert items[0] == items[1], "slots stand in the order of trunk and tails"
    first = len(trunk)
    for row, tail in zip(alone, tails, strict=True):
        own = np.r_[0 : len(trunk), first : first + len(tail)]
        for name in ("ids", "target", "weight", "role", "type", "position", "document"):
            assert np.array_equal(getattr(together, name)[own], getattr(row, name)), name
        plain = allowed(collate([row], pad_id=0), window=window)[0]
        assert table[own][:, own].equal(plain)
        others = np.setdiff1d(np.arange(len(together)), own)
        assert not table[own[len(trunk) :]][:, others].any(), "it sees another branch"
        first += len(tail)
    for name in together.segments:
        numbers = [index for one, index in _slots(together) if one == name]
        assert numbers == list(range(len(numbers))), "each slot of a segment has a number of its own, in order"


def _slots(row: TokenSequence) -> list[tuple[str, int]]:
    return [(row.segments[segment] if segment >= 0 else "", index) for segment, index in row.slot.tolist()]


def test_joined_rows_of_branches_stay_apart():
    one = branched(TokenSequence.of([1, 2]), [TokenSequence.of([3]), TokenSequence.of([4, 5])])
    two = TokenSequence.join([one, one], new_documents=True)
    assert two.block.tolist() == [0, 0, -1, -2, -2, 0, 0, -3, -4, -4]
    assert two.position.tolist() == [0, 1, 2, 2, 3] * 2
    among = TokenSequence.join([TokenSequence.of([1, 2], block=2), one])
    assert among.block.tolist() == [2, 2, 0, 0, -1, -2, -2]


def test_a_picture_in_the_trunk_sees_itself_both_ways():
    trunk = TokenSequence.of([1, 2, 3], block=[0, 1, 1])
    row = branched(trunk, [TokenSequence.of([4]), TokenSequence.of([5, 6])])
    assert row.block.tolist() == [0, 1, 1, -1, -2, -2]
    seen = allowed(collate([row], pad_id=0))[0].int().tolist()
    assert seen[1] == [1, 1, 1, 0, 0, 0]
    assert seen[3:] == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0], [1, 1, 1, 0, 1, 1]]
    with pytest.raises(SequenceError, match="tail 0 has branches, blocks"):
        branched(TokenSequence.of([1]), [trunk])


@pytest.mark.parametrize(
    ("trunk", "tails", "fault"),
    [
        ([], [[1]], "a trunk of 0 positions"),
        ([1], [], r"tails of \[\]"),
        ([1], [[1], []], r"tails of \[1, 0\]"),
    ],
)
def test_something_has_to_branch(trunk, tails, fault):
    with pytest.raises(SequenceError, match=fault):
        branched(TokenSequence.of(trunk), [TokenSequence.of(tail) for tail in tails])


def test_branches_do_not_branch():
    one = branched(TokenSequence.of([1]), [TokenSequence.of([2])])
    with pytest.raises(SequenceError, match="the trunk has branches"):
        branched(one, [TokenSequence.of([2])])
    packed = TokenSequence.join([TokenSequence.of([1])] * 2, new_documents=True)
    with pytest.raises(SequenceError, match="tail 1 has branches, blocks or several documents"):
        branched(TokenSequence.of([1]), [TokenSequence.of([2]), packed])
