"""Frames there and back, step by step in plain words, and the gripper's number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra.action.frames import FRAMES, from_frame, gripped, to_frame
from vertebra.errors import DataError, UnknownNameError


def plain(actions, frame, state, which):
    """One number after the other."""
    made = np.array(actions, np.float64)
    for step in range(len(actions)):
        for at, meant in enumerate(which):
            if meant and frame == "delta":
                made[step, at] -= state[at] if step == 0 else actions[step - 1, at]
            elif meant and frame == "relative":
                made[step, at] -= state[at]
    return made


@given(
    frame=st.sampled_from(FRAMES),
    chunk=st.sampled_from([1, 2, 50]),
    dims=st.sampled_from([1, 7]),
    seed=st.integers(0, 99),
)
def test_there_and_back(frame, chunk, dims, seed):
    rng = np.random.default_rng(seed)
    actions, state, which = rng.normal(size=(chunk, dims)), rng.normal(size=dims + 1), rng.random(dims) < 0.8
    before = actions.copy(), state.copy()
    made = to_frame(actions, frame, state, dims=which)
    assert np.allclose(made, plain(actions, frame, state, which if frame != "absolute" else [False] * dims))
    assert np.allclose(from_frame(made, frame, state, dims=which), actions)
    assert np.array_equal(actions, before[0])
    assert np.array_equal(state, before[1])


def test_many_robots_at_once():
    rng = np.random.default_rng(0)
    actions, states = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 3))
    for frame in FRAMES:
        together = from_frame(actions, frame, states)
        assert np.array_equal(
            together, np.stack([from_frame(a, frame, s) for a, s in zip(actions, states, strict=True)])
        )


def test_grippers():
    given = np.array([[9.0, 0.0], [9.0, 0.4], [9.0, 0.5], [9.0, 1.0]])
    before = given.copy()
    assert gripped(given, "binary")[:, 1].tolist() == [0, 0, 1, 1]
    assert gripped(given, "sign")[:, 1].tolist() == [-1, -1, 0, 1]
    assert gripped(given, "sign-inverted")[:, 1].tolist() == [1, 1, 0, -1]
    assert np.array_equal(gripped(given, "as-is"), before)
    assert np.array_equal(given, before)
    assert gripped(given.astype(np.float32), "binary").dtype == np.float32


def test_what_is_refused():
    with pytest.raises(UnknownNameError, match="relative"):
        to_frame(np.zeros((2, 2)), "relativ", np.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="measured from the robot's state; give it"):
        from_frame(np.zeros((2, 2)), "delta")
    with pytest.raises(DataError, match="at least 3 numbers"):
        from_frame(np.zeros((2, 3)), "delta", np.zeros(2))
    assert from_frame(np.zeros((1, 3)), "delta", [1.0, 2.0], dims=[True, True, False]).tolist() == [[1, 2, 0]]
    with pytest.raises(DataError, match="whose steps follow each other"):
        to_frame(np.zeros(3), "delta", np.zeros(3))
    with pytest.raises(UnknownNameError, match="sign-inverted"):
        gripped(np.zeros(2), "inverted")  # type: ignore[arg-type]
