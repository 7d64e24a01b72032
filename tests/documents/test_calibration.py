"""Calibration: the staircase is the best that never falls, two numbers are found again, and the error is what it is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vertebra.documents.calibration import FILE, Calibration, calibration_of, ece
from vertebra.errors import ConfigError, DataError, UnknownNameError


def plain_isotonic(x, y):
    """max over starts of min over ends of the mean between: the textbook's formula."""
    order = np.argsort(x, kind="stable")
    xs, ys = np.asarray(x)[order], np.asarray(y, float)[order]
    values = sorted(set(xs.tolist()))
    groups = [ys[xs == value] for value in values]
    made = {}
    for k in range(len(groups)):
        made[values[k]] = max(
            min(float(np.concatenate(groups[i : j + 1]).mean()) for j in range(k, len(groups))) for i in range(k + 1)
        )
    return made


@pytest.mark.parametrize("seed", range(5))
def test_the_staircase(seed):
    chance = np.random.default_rng(seed)
    x = chance.integers(0, 12, 40) / 12
    y = chance.random(40) < x
    fitted = Calibration.fit(x, y, "isotonic")
    for value, expected in plain_isotonic(x, y).items():
        assert fitted(value) == pytest.approx(expected)
    over = [fitted(value) for value in np.linspace(0, 1, 50)]
    assert over == sorted(over)


def test_two_numbers_are_found_again():
    chance = np.random.default_rng(0)
    true = Calibration(kind="temperature", scale=0.4, shift=-0.5)
    raw = chance.random(20000)
    right = chance.random(20000) < [true(value) for value in raw]
    fitted = Calibration.fit(raw, right)
    assert (fitted.scale, fitted.shift) == pytest.approx((0.4, -0.5), abs=0.05)
    assert ece([fitted(value) for value in raw], right) < 0.02 < ece(raw, right)
    few = Calibration.fit([0.9, 0.8], [True, True])
    assert 0 < few(0.5) < 1


def plain_ece(x, y, bins):
    total = 0.0
    for n in range(bins):
        own = [
            (a, b) for a, b in zip(x, y, strict=True) if n / bins <= a < (n + 1) / bins or (n == bins - 1 and a == 1)
        ]
        if own:
            total += len(own) * abs(sum(a for a, _ in own) / len(own) - sum(b for _, b in own) / len(own))
    return total / len(x)


def test_the_error():
    chance = np.random.default_rng(3)
    for size, bins in itertools.product((1, 7, 200), (1, 8, 16)):
        x, y = chance.random(size), chance.random(size) < 0.5
        assert ece(x, y, bins) == pytest.approx(plain_ece(x, y, bins))
    assert ece([1.0], [True]) == 0.0


def test_files_records_and_mistakes(tmp_path):
    made = Calibration.fit([0.1, 0.9, 0.8], [False, True, False], "isotonic")
    assert calibration_of(made.write(tmp_path / "c.json"), {}) == made
    assert calibration_of(None, {FILE: made.to_json()}) == made
    assert calibration_of(None, {}) is None
    assert calibration_of(made, {}) is made
    (tmp_path / "no.json").write_text("[]")
    for bad in (tmp_path / "no.json", tmp_path / "none.json"):
        with pytest.raises(DataError):
            calibration_of(bad, {})
    for damaged in ({}, {"kind": "isotonic"}, {"kind": "x"}, {"kind": "temperature", "scale": float("nan")},
                    {"kind": "isotonic", "steps": [[1]]}):  # fmt: skip
        with pytest.raises(DataError, match="fit it again"):
            calibration_of(None, {FILE: damaged})
    with pytest.raises(ConfigError, match="expected a Calibration"):
        calibration_of(3, {})
    with pytest.raises(UnknownNameError):
        Calibration.fit([0.5], [True], "platt")
    for x, y in (([], []), ([0.5], [True, False]), ([2.0], [True]), ([float("nan")], [True])):
        with pytest.raises(DataError):
            ece(x, y)
