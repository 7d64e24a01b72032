"""Chunks: windows of an episode, the first k, ensembling against a plain sum, and the weights of real-time chunking."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra.action.chunks import SCHEDULES, Ensemble, first, guidance_weight, prefix_weights, remaining, windows
from vertebra.errors import ConfigError, DataError, UnknownNameError


@given(steps=st.integers(1, 40), chunk=st.integers(1, 50))
def test_windows(steps, chunk):
    actions = np.random.default_rng(steps).normal(size=(steps, 3)).astype(np.float32)
    made, pad = windows(actions, chunk)
    assert (made.dtype, made.shape, pad.shape) == (np.float32, (steps, chunk, 3), (steps, chunk))
    for start in range(steps):
        for ahead in range(chunk):
            beyond = start + ahead >= steps
            assert pad[start, ahead] == beyond
            assert np.array_equal(made[start, ahead], actions[-1] if beyond else actions[start + ahead])


def test_the_first_ones_are_carried_out():
    chunk = np.arange(12.0).reshape(6, 2)
    assert first(chunk, 2).tolist() == [[0, 1], [2, 3]]
    assert first(chunk[None], 1).tolist() == [[[0, 1]]]
    copy = first(chunk, None)
    copy[:] = 0
    assert chunk[1, 1] == 3.0
    assert remaining(chunk, 4).tolist() == [[8, 9], [10, 11]]
    with pytest.raises(DataError, match="7 actions of a chunk of 6"):
        first(chunk, 7)
    with pytest.raises(ConfigError, match="count is 0"):
        first(chunk, 0)
    with pytest.raises(DataError, match="7 steps"):
        remaining(chunk, 7)


@given(decay=st.sampled_from([0.0, 0.01, 2.0]), oldest=st.booleans(), chunk=st.sampled_from([1, 3, 8]))
def test_ensembling_is_the_plain_sum(decay, oldest, chunk):
    rng = np.random.default_rng(0)
    chunks = [rng.normal(size=(chunk, 2)) for _ in range(12)]
    ensemble = Ensemble(decay=decay, oldest_first=oldest)
    for now, new in enumerate(chunks):
        reported = [
            (now - t, chunks[t][now - t]) for t in range(now + 1) if now - t < chunk
        ]  # (age, what it says of now)
        oldest_age = max(age for age, _ in reported)
        weights = [math.exp(-decay * ((oldest_age - age) if oldest else age)) for age, _ in reported]
        expected = sum(w * a for w, (_, a) in zip(weights, reported, strict=True)) / sum(weights)
        assert np.allclose(ensemble.add(new), expected)
    ensemble.reset()
    assert np.allclose(ensemble.add(chunks[0]), chunks[0][0])


@given(chunk=st.integers(1, 50), data=st.data())
def test_prefix_weights(chunk, data):
    overlap = data.draw(st.integers(0, chunk))
    delay = data.draw(st.integers(0, overlap))
    for schedule in SCHEDULES:
        weights = prefix_weights(chunk, delay, overlap, schedule)
        for step, weight in enumerate(weights):
            share = (overlap - step) / (overlap - delay + 1)
            between = {"linear": share, "exp": share * (math.exp(share) - 1) / (math.e - 1), "ones": 1.0, "zeros": 0.0}
            expected = 1.0 if step < delay else between[schedule] if step < overlap else 0.0
            assert weight == pytest.approx(expected)
        assert (np.diff(weights) <= 0).all()


def test_guidance_weights():
    for time in (0.1, 0.5, 0.9):
        square = (1 - time) ** 2 / (time**2 + (1 - time) ** 2)
        assert guidance_weight(time, most=1e9) == pytest.approx((1 - time) / (time * square))
    assert [guidance_weight(time) for time in (0, 1)] == [5.0, 5.0]
    assert guidance_weight(0.5) == 2.0


def test_what_is_refused():
    with pytest.raises(ConfigError, match="expected 0 ≤ delay ≤ overlap ≤ chunk"):
        prefix_weights(4, 3, 2)
    with pytest.raises(UnknownNameError, match="linear"):
        prefix_weights(4, 1, 2, "linea")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="time is 2"):
        guidance_weight(2)
    with pytest.raises(DataError, match="expected"):
        windows(np.zeros(3), 2)
    with pytest.raises(ConfigError, match="chunk is 0"):
        windows(np.zeros((3, 1)), 0)
    ensemble = Ensemble()
    ensemble.add(np.zeros((2, 3)))
    for bad in (np.zeros(3), np.zeros((2, 4))):
        with pytest.raises(DataError, match="a chunk has the shape"):
            ensemble.add(bad)
    with pytest.raises(ConfigError, match="decay"):
        Ensemble(decay=float("nan"))
