"""Normalisation against the original's formulas, its inverse, and what is done to masks, constants and NaN."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra.action.normalization import NORMS, limits, normalize, outside, unnormalize
from vertebra.action.statistics import Moments
from vertebra.errors import DataError, UnknownNameError


def moments(dims: int, seed: int = 0, **fields) -> Moments:
    rows = np.random.default_rng(seed).normal(size=(500, dims)) * np.linspace(0.1, 30, dims) + np.arange(dims)
    made = {
        "mean": rows.mean(0), "std": rows.std(0), "min": rows.min(0), "max": rows.max(0),
        "q01": np.quantile(rows, 0.01, axis=0), "q99": np.quantile(rows, 0.99, axis=0),
    }  # fmt: skip
    return Moments(**{**made, **fields})


def original(x, stats, how, mask):
    """What OpenVLA's data pipeline does, one dimension at a time."""
    made = np.array(x, np.float64)
    for at in range(made.shape[-1]):
        low, high = {"quantile": (stats.q01, stats.q99), "min-max": (stats.min, stats.max)}.get(how, (None, None))
        if mask[at] and how == "mean-std":
            made[..., at] = (made[..., at] - stats.mean[at]) / (stats.std[at] + 1e-8)
        elif mask[at] and how != "none":
            made[..., at] = np.clip(2 * (made[..., at] - low[at]) / (high[at] - low[at] + 1e-8) - 1, -1, 1)
        if stats.min[at] == stats.max[at]:
            made[..., at] = 0.0
    return made


def original_inverse(y, stats, mask):
    """What OpenVLA does to its actions."""
    return np.where(mask, 0.5 * (y + 1) * (stats.q99 - stats.q01) + stats.q01, y)


@given(
    dims=st.sampled_from([1, 7, 64]), chunk=st.sampled_from([1, 50]), how=st.sampled_from(NORMS), seed=st.integers(0, 99),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)  # fmt: skip
def test_the_originals_formulas(dims, chunk, how, seed, dtype):
    rng = np.random.default_rng(seed)
    mask = rng.random(dims) < 0.7
    stats = moments(dims, seed, mask=mask)
    x = (rng.normal(size=(3, chunk, dims)) * 20).astype(dtype)
    before = x.copy()
    made = normalize(x, stats, how)
    assert made.dtype == dtype
    expected = original(x, stats, how, mask)
    assert np.allclose(made, expected.astype(dtype), rtol=1e-6)
    assert np.array_equal(x, before)
    y = rng.uniform(-1, 1, (chunk, dims))
    assert unnormalize(y.astype(dtype), stats, how).dtype == dtype
    if how == "quantile":
        assert np.allclose(unnormalize(y, stats), original_inverse(y, stats, mask), rtol=0, atol=2e-8)


@given(how=st.sampled_from(NORMS), seed=st.integers(0, 99))
def test_there_and_back(how, seed):
    stats = moments(5, seed, mask=np.array([True, True, True, True, False]))
    low, high = stats.q01, stats.q99
    x = np.random.default_rng(seed).uniform(low, high, (40, 5))
    assert np.allclose(unnormalize(normalize(x, stats, how), stats, how), x, rtol=1e-12, atol=1e-12)


def test_a_rule_for_each_dimension():
    stats = moments(4)
    how = ("quantile", "none", "mean-std", "min-max")
    x = np.random.default_rng(0).normal(size=(9, 4))
    made = normalize(x, stats, how)
    for at, rule in enumerate(how):
        assert np.array_equal(made[:, at], normalize(x, stats, rule)[:, at])
    inside = np.clip(x, stats.q01, stats.q99)
    assert np.allclose(unnormalize(normalize(inside, stats, how), stats, how), inside)


def test_what_never_moved_is_zero_and_comes_back():
    stats = moments(2)
    still = Moments(**{name: np.array([getattr(stats, name)[0], 4.0]) for name in ("mean", "min", "max", "q01", "q99")})
    still = Moments(**{**vars(still), "std": np.array([1.0, 0.0])})
    for how in ("quantile", "min-max", "mean-std"):
        made = normalize([[1.0, 4.0], [1.0, 9.0]], still, how)
        assert made[:, 1].tolist() == [0.0, 0.0]
        assert unnormalize(made, still, how)[:, 1] == pytest.approx([4.0, 4.0])
        assert np.isfinite(made).all()


def test_equal_quantiles_give_no_infinity():
    stats = Moments(q01=np.array([2.0]), q99=np.array([2.0]), min=np.array([0.0]), max=np.array([5.0]))
    assert normalize([[1.0], [2.0], [3.0]], stats)[:, 0].tolist() == [-1.0, -1.0, 1.0]
    assert unnormalize([[1.0]], stats)[0, 0] == pytest.approx(2.0)


def test_proprio_is_cut_and_nan_refused():
    stats = moments(3, mask=np.array([True, True, False]))
    made = normalize([99.0, -99.0, 7.0], stats, proprio=True)
    assert made.tolist() == [1.0, -1.0, 1.0]
    assert normalize([1.0, 1.0, 7.0], stats)[2] == 7.0, "an action beyond the mask stays as it is"
    with pytest.raises(DataError, match=r"proprio: 1 of 3 are NaN or infinite, the first at \[\[1\]\]"):
        normalize([0.0, float("nan"), 0.0], stats, proprio=True)


def test_outside_of_the_data():
    stats = moments(3, mask=np.array([True, True, False]))
    low, high = limits(stats)
    assert (low[0], high[1], high[2]) == (stats.min[0], stats.max[1], np.inf)
    actions = np.stack([stats.max, stats.max + 0.1, stats.min - 0.1])
    assert outside(actions, stats).tolist() == [[False] * 3, [True, True, False], [True, True, False]]
    assert not outside(actions, stats, "none").any()
    ends = unnormalize(np.array([[-1.0] * 3, [1.0] * 3]), stats, "min-max")
    assert not outside(ends, stats, "min-max").any(), "rounding is not outside"


def test_what_is_refused():
    stats = moments(3)
    with pytest.raises(DataError, match=r"7 dimensions .* expected 3"):
        normalize(np.zeros(7), stats)
    with pytest.raises(UnknownNameError, match="quantile"):
        unnormalize(np.zeros(3), stats, "quantiles")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="rules of normalization have 2"):
        normalize(np.zeros(3), stats, ("none", "none"))
    with pytest.raises(DataError, match="`quantile` needs `q01`"):
        normalize(np.zeros(1), Moments(mean=np.zeros(1), std=np.ones(1)))
