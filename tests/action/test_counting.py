"""One pass against numpy over everything: pieces of any size, tails alone, counters that join."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra.action.counting import Counter
from vertebra.errors import DataError


def plain(rows: np.ndarray) -> dict[str, np.ndarray]:
    rows = rows.astype(np.float64)
    return {
        "mean": rows.mean(0), "std": rows.std(0), "min": rows.min(0), "max": rows.max(0),
        "q01": np.quantile(rows, 0.01, axis=0), "q99": np.quantile(rows, 0.99, axis=0),
    }  # fmt: skip


def agrees(counter: Counter, rows: np.ndarray) -> None:
    made = counter.moments()
    for name, expected in plain(rows).items():
        assert np.allclose(getattr(made, name), expected, rtol=1e-10, atol=1e-12), name
    assert made.count == len(rows)


def pieces(rows: np.ndarray, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, len(rows) + 1, rng.integers(0, 9)))
    return np.split(rows, cuts)


@given(
    count=st.integers(1, 700), dims=st.sampled_from([1, 3, 64]), seed=st.integers(0, 1 << 30), total=st.booleans(),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)  # fmt: skip
def test_one_pass_is_numpy_over_everything(count, dims, seed, total, dtype):
    rows = (np.random.default_rng(seed).standard_t(2, (count, dims)).clip(-999, 999) + 3).astype(dtype)
    before = rows.copy()
    counter = Counter(dims, total=count if total else None)
    for piece in pieces(rows, seed):
        counter.add(piece)
    agrees(counter, rows)
    assert np.array_equal(rows, before)


def test_tails_alone_are_kept():
    rows = np.random.default_rng(0).normal(size=(60_000, 2))
    counter = Counter(2, total=70_000)  # a total may be too large
    for start in range(0, len(rows), 777):
        counter.add(rows[start : start + 777])
    agrees(counter, rows)
    kept = len(counter._low.rows()) + len(counter._high.rows())
    assert kept <= 0.021 * 70_000 + 4


def test_counters_join_exactly():
    rows = np.random.default_rng(1).normal(size=(5000, 3)) * [1, 100, 1e-3]
    for total in (None, 5000):
        parts = []
        for piece in np.split(rows, [10, 1200, 1201]):
            part = Counter(3, total=total)
            part.add(piece)
            parts.append(part)
        first = Counter(3, total=total)
        for part in parts:
            first.merge(part)
        first.merge(Counter(3, total=total))
        agrees(first, rows)
        agrees(parts[1], rows[10:1200])


def test_a_tail_that_was_cut_too_short_does_not_join():
    part = Counter(1, total=1000)
    part.add(np.random.default_rng(0).normal(size=(1000, 1)))
    for whole in (Counter(1), Counter(1, total=9000)):
        with pytest.raises(DataError, match="total of all the data"):
            whole.merge(part)


def test_one_row_and_equal_rows():
    counter = Counter(2)
    counter.add([1.0, 2.0])
    agrees(counter, np.array([[1.0, 2.0]]))
    counter.add(np.full((99, 2), [1.0, 2.0]))
    assert counter.moments().std.tolist() == [0.0, 0.0]
    assert counter.moments().constant.tolist() == [True, True]


def test_what_is_refused():
    counter = Counter(2, total=3)
    with pytest.raises(DataError, match="NaN or infinite"):
        counter.add([[0, 1], [np.nan, 1]])
    assert counter.count == 0
    with pytest.raises(DataError, match=r"expected \[rows, 2\]"):
        counter.add(np.zeros((3, 3)))
    with pytest.raises(DataError, match="4 rows came, and the total was given as 3"):
        counter.add(np.zeros((4, 2)))
    with pytest.raises(DataError, match="no rows"):
        counter.moments()
    with pytest.raises(DataError, match="give `total`"):
        Counter(2, most=10).add(np.zeros((6, 2)))
    counter.add(np.zeros((2, 2)))
    with pytest.raises(DataError, match="the mask"):
        counter.moments(mask=[True])
    with pytest.raises(DataError, match="cannot join"):
        counter.merge(Counter(3))
