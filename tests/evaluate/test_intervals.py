"""Intervals and tests beside SciPy's, and beside counting everything that can happen."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vertebra.evaluate.intervals import mcnemar, paired_difference, wilson


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(pair):
    successes, count = pair
    theirs = stats.binomtest(successes, count).proportion_ci(0.95, "wilson")
    assert wilson(successes, count) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_of_nothing_everything_is_possible():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 50)[0] == 0.0
    assert wilson(50, 50)[1] == 1.0
    assert mcnemar(0, 0) == 1.0
    assert paired_difference(0, 0, 0, 0) == (0.0, -1.0, 1.0)


@given(st.integers(0, 120), st.integers(0, 120))
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int):
    expected = stats.binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(first, second) == mcnemar(second, first)


@given(*[st.integers(0, 60)] * 4)
def test_a_paired_difference_is_between_minus_one_and_one_and_turns_around(both, first, second, neither):
    made, low, high = paired_difference(both, first, second, neither)
    assert low <= made <= high
    assert low >= -1 - 1e-9
    assert high <= 1 + 1e-9
    turned = paired_difference(both, second, first, neither)
    assert turned == pytest.approx((-made, -high, -low), abs=1e-9)


def test_newcombes_own_example():
    """Statistics in Medicine 17 (1998) 2635: 36, 12, 2, 0 of 50 pairs, method 10: 0.0569 to 0.3404."""
    made, low, high = paired_difference(36, 12, 2, 0)
    assert made == pytest.approx(0.2)
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=6e-5)


@pytest.mark.parametrize("chances", [(0.6, 0.3, 0.05, 0.05), (0.45, 0.05, 0.05, 0.45), (0.9, 0.05, 0.03, 0.02)])
def test_its_interval_holds_the_truth_as_often_as_it_promises(chances):
    """All tables of 20 pairs, each with its probability."""
    count, truth, covered = 20, chances[1] - chances[2], 0.0
    for a in range(count + 1):
        for b in range(count + 1 - a):
            for c in range(count + 1 - a - b):
                table = (a, b, c, count - a - b - c)
                _, low, high = paired_difference(*table)
                if low <= truth <= high:
                    ways = math.factorial(count) / math.prod(map(math.factorial, table))
                    covered += ways * math.prod(p**n for p, n in zip(chances, table, strict=True))
    assert covered > 0.93
