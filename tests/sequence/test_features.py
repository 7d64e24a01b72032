"""Raw items beside their slots: gathered in row order, and refused row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.errors import InjectionError, UnknownNameError
from vertebra.sequence.batch import collate
from vertebra.sequence.tokens import TokenSequence


def row(**slots: int) -> TokenSequence:
    """One token, then so many slots of each name."""
    entries = [(-1, -1)] + [(i, k) for i, n in enumerate(slots.values()) for k in range(n)]
    return TokenSequence.of([1] * len(entries), slot=entries, segments=tuple(slots))


def gather(sequences, features):
    return collate(sequences, features, pad_id=0).features


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(1, 3))
def test_items_stand_in_row_order(counts, slots_each):
    sequences = [row(boxes=count * slots_each) for count in counts]
    items = [np.arange(4 * n, dtype=np.int64).reshape(n, 4) + 100 * r for r, n in enumerate(counts)]
    blocks = gather(sequences, [{"boxes": item} if len(item) else {} for item in items])
    expected = [(r, item) for r, own in enumerate(items) for item in own.tolist()]
    if not expected:
        assert blocks == {}
    else:
        assert blocks["boxes"]["rows"].tolist() == [r for r, _ in expected]
        assert blocks["boxes"]["values"].tolist() == [item for _, item in expected]
        assert blocks["boxes"]["values"].dtype == torch.int64


def test_kinds_of_numbers():
    one = [row(image=1)]
    assert gather(one, [{"image": np.zeros((1, 3), np.uint8)}])["image"]["values"].dtype == torch.uint8
    assert gather(one, [{"image": [[0.5, 1.0]]}])["image"]["values"].dtype == torch.float32  # not fp64
    assert gather(one, [{"image": torch.ones(1, 2, dtype=torch.float16)}])["image"]["values"].dtype == torch.float16


def test_the_users_array_is_not_shared():
    mine = np.zeros((1, 2), np.float32)
    mine.flags.writeable = False
    gather([row(image=1)], [{"image": mine}])["image"]["values"][0, 0] = 1
    assert mine[0, 0] == 0


def test_large_values_are_not_taken_for_nan():
    large = np.full((1, 4), 3e38, np.float32)  # the sum overflows
    assert torch.isfinite(gather([row(image=1)], [{"image": large}])["image"]["values"]).all()


def test_slots_that_nobody_fills_are_left_to_others():
    assert gather([row(action=7), row(action=7)], [{}, None]) == {}


@pytest.mark.parametrize(
    ("sequences", "features", "says"),
    [
        # 3 + 5 for 4 + 4: the total is right, the rows are not
        ([row(image=4), row(image=4)], [{"image": np.ones((3, 2))}, {"image": np.ones((5, 2))}], "row 0.*; row 1"),
        ([row(image=1), row(image=1)], [{"image": np.ones((1, 2))}, {}], "row 1 has 1 slots of `image` and no item"),
        ([row(image=1), row()], [{"image": np.ones((1, 2))}] * 2, "row 1 has 1 items of `image` for 0 slots"),
        (
            [row(image=4), row(image=2)],
            [{"image": np.ones((1, 2))}, {"image": np.ones((1, 2))}],
            r"row 1 .*\(2 each\), where row 0 has 4 each",
        ),
        ([row(image=1)] * 2, [{"image": np.ones((1, 2))}, {"image": np.ones((1, 3))}], r"row 1: .*\(3,\), those"),
        ([row(image=1)] * 2, [{"image": np.ones((1, 2), int)}, {"image": np.ones((1, 2))}], "row 1: .*float32"),
        ([row(p=1)], [{"p": np.array([[1.0, np.nan]])}], "row 0: `p` holds NaN"),
        ([row(p=1)], [{"p": np.array([[1.0, np.inf]])}], "row 0: `p` holds NaN or infinite"),
        ([row(p=1)], [{"p": np.array(["x"])}], "row 0: `p` is <U1"),
        ([row(p=1)], [{"p": 3.0}], r"of shape \(\)"),
        ([row(p=1)], [{}, {}], "2 rows of features for 1 sequences"),
    ],
)
def test_what_does_not_fit(sequences, features, says):
    with pytest.raises(InjectionError, match=says):
        gather(sequences, features)


def test_a_name_that_no_row_has():
    with pytest.raises(UnknownNameError, match=r"Did you mean `image`.*Row 1"):
        gather([row(image=1), row(image=1)], [{"image": np.ones((1, 2))}, {"imaeg": np.ones((1, 2))}])
