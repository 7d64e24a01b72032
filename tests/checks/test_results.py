"""Whether a measure holds follows from its number; rows and numbers as they are written."""

from __future__ import annotations

import pytest
import torch

from vertebra.checks.results import Measure, Report, Result, Skip, written
from vertebra.checks.subject import difference


@pytest.mark.parametrize(
    ("number", "relation", "bound", "holds"),
    [
        (1e-7, "<=", 1e-4, True),
        (1e-4, "<=", 1e-4, True),
        (2e-4, "<=", 1e-4, False),
        (float("nan"), "<=", 1e-4, False),
        (float("inf"), "<=", 1e-4, False),
        (3, "==", 3, True),
        (2, "==", 3, False),
        (float("nan"), "==", float("nan"), False),
    ],
)
def test_a_measure_holds(number, relation, bound, holds):
    assert Measure(number=number, relation=relation, bound=bound, message="").holds is holds
    assert not Measure(number=number, relation=relation, bound=bound, message="", faults=("a fault",)).holds


def test_rows():
    good = Result.of("a", Measure(number=0, relation="==", bound=0, message="faults"), mend="mend it", seconds=1)
    bad = Result.of(
        "b", Measure(number=1, relation="==", bound=0, message="faults", faults=("x is 7",)), mend="mend it", seconds=1
    )
    broken = Result.of("c", "ValueError: no", mend="mend it", seconds=1)
    left = Result.of("d", Skip("no window"), mend="mend it", seconds=1)
    assert (good.status, good.mend, good.bound) == ("pass", None, "= 0")
    assert (bad.status, bad.mend, bad.message) == ("fail", "mend it", "faults; x is 7")
    assert (broken.status, broken.number, broken.mend) == ("fail", None, "mend it")
    assert (left.status, left.mend, left.message) == ("skip", None, "no window")
    report = Report(model="m", facts={}, guesses={}, results=(good, bad, broken, left))
    assert not report.passed
    assert report.failed == ("b", "c")
    assert Report(model="m", facts={}, guesses={}, results=(good, left)).passed


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (0.0, "0"), (41, "41"), (1e-4, "1.0e-04"), (6.86e-7, "6.9e-07"), (0.25, "2.5e-01")]
)
def test_numbers_as_written(number, text):
    assert written(number) == text


def test_the_difference():
    expected = torch.tensor([[-4.0, 2.0]])
    assert difference(expected, expected) == 0
    assert difference(torch.tensor([[-4.0, 3.0]]), expected) == 0.25
    assert difference(torch.tensor([[float("nan"), 2.0]]), expected) == float("inf")
    assert difference(expected, torch.tensor([[float("inf"), 2.0]])) == float("inf")
    assert difference(expected[:, :1], expected) == float("inf")
    assert difference(torch.zeros(2), torch.zeros(2)) == 0
