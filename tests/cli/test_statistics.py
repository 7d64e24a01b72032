"""`vertebra statistics`: shown as a table, attached from a file, and what is refused."""

from __future__ import annotations

import json

import pytest

from tests.policies.models import STATISTICS, policy_model


@pytest.fixture
def folder(tmp_path):
    policy_model(statistics={}).save(tmp_path / "old")
    return tmp_path / "old"


def test_shown_and_attached(vertebra, folder, tmp_path):
    assert "no statistics" in vertebra("statistics", str(folder)).out
    file = tmp_path / "dataset_statistics.json"
    file.write_text(json.dumps(STATISTICS))
    done = vertebra("statistics", str(folder), "--from", str(file), "--key", "bridge")
    assert done.code == 0, done.err
    assert "bridge attached" in done.out
    shown = vertebra("statistics", str(folder))
    assert "bridge" in shown.out
    assert "quantiles exact" in shown.out
    assert len(shown.out.splitlines()) == 2 + 3 + 4
    assert "as it is" in shown.out
    assert json.loads(vertebra("statistics", str(folder), "--json").out) == {"bridge": STATISTICS["bridge"]}


def test_mistakes(vertebra, folder):
    assert "no effect without --from" in vertebra("statistics", str(folder), "--overwrite").err
    done = vertebra("statistics", str(folder), "--from", str(folder / "config.json"))
    assert (done.code, "no statistics that are known" in done.err) == (1, True)
    assert "unknown data set `x`" in vertebra("statistics", str(folder), "--key", "x").err
