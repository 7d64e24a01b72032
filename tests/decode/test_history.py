"""What rows have said, kept up to date step by step, beside what a fresh history of the same ids says."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.decode.choose.history import History

V = 9


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_grown_is_fresh(seed, steps, size):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, V, (3, 5), generator=generator)
    text = torch.rand(3, 5, generator=generator) < 0.7
    grown = History(ids, text, vocabulary=V, pad_id=0)
    grown.repeats(size)
    grown.seen(ids.device)
    for _ in range(steps):
        tokens = torch.randint(0, V, (3,), generator=generator)
        grown.add(tokens.tolist(), tokens)
        ids = torch.cat([ids, tokens[:, None]], 1)
        text = torch.cat([text, torch.ones(3, 1, dtype=torch.bool)], 1)
    fresh = History(ids, text, vocabulary=V, pad_id=0)
    for one, other in ((grown, fresh), (grown.select([2, 0]), fresh.select([2, 0]))):
        assert one.rows == other.rows
        assert torch.equal(one.seen(ids.device), other.seen(ids.device))
        assert [sorted(row) for row in one.repeats(size)] == [sorted(row) for row in other.repeats(size)]
        assert torch.equal(one.ids(ids.device), other.ids(ids.device))


def test_penalties_count_text_alone():
    history = History(torch.tensor([[3, 4, 5]]), torch.tensor([[False, True, True]]), vocabulary=V, pad_id=0)
    assert history.seen(torch.device("cpu"))[0].nonzero()[:, 0].tolist() == [4, 5]
    assert history.ids(torch.device("cpu")).tolist() == [[4, 5]]


def test_follows():
    history = History(torch.tensor([[1, 2], [2, 1]]), torch.ones(2, 2, dtype=torch.bool), vocabulary=V, pad_id=0)
    assert history.follows((1, 2), 7) == [[7], []]
    assert history.follows((), 7) == [[7], [7]]
    assert history.follows((1, 2, 3, 4), 7) == [[], []]
