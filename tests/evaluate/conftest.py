from __future__ import annotations

import pytest

from vertebra.simulate import suites
from vertebra.simulate.kept import close_all


@pytest.fixture(autouse=True)
def line(monkeypatch):
    """The toy's tasks beside those of real simulators."""
    monkeypatch.setitem(suites.SIMULATORS, "line", "tests.evaluate.toys")
    close_all()
    yield
    close_all()
