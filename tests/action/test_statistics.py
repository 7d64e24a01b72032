"""Statistics as OpenVLA writes them: read, written, looked up by key, joined as LeRobot does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vertebra.action.counting import Counter
from vertebra.action.statistics import DatasetStatistics, Moments, envelope, lookup
from vertebra.errors import DataError, UnknownNameError

RNG = np.random.default_rng(1)


def counted(rows, **options) -> DatasetStatistics:
    counter = Counter(rows.shape[1])
    counter.add(rows)
    return DatasetStatistics(action=counter.moments(**options), num_transitions=len(rows), quantiles="exact")


def test_json_there_and_back():
    made = counted(RNG.normal(size=(300, 3)), mask=[True, True, False])
    again = DatasetStatistics.of(json.loads(json.dumps(made.to_json())), "here")
    for name in ("mean", "std", "min", "max", "q01", "q99", "mask"):
        assert np.array_equal(getattr(again.action, name), getattr(made.action, name)), name
    assert (again.num_transitions, again.num_trajectories, again.quantiles) == (300, None, "exact")
    assert again.action.count == 300


def test_what_others_write():
    moments = {name: [0.0, 1.0] for name in ("mean", "std", "min", "max", "q01", "q99", "q50")}
    given = {"action": moments, "proprio": {name: [0.0, 0.0] for name in moments}, "num_trajectories": 3}
    read = DatasetStatistics.of(given, "bridge")
    assert read.proprio is None, "zeros say that there is none"
    assert read.quantiles == "unknown"
    assert Moments.of({"mean": [[0.5]][0], "count": [12]}, "x").count == 12


def test_the_only_key_is_taken():
    statistics = {"bridge_orig": counted(RNG.normal(size=(9, 2))).to_json()}
    assert lookup(statistics, None)[0] == "bridge_orig"
    assert lookup(statistics, "bridge_orig")[1].num_transitions == 9


def test_keys_that_are_not_there():
    one = counted(RNG.normal(size=(9, 2))).to_json()
    many = {f"set_{number}": one for number in range(20)} | {"bridge_orig": one}
    with pytest.raises(DataError, match="statistics of 21 data sets; name one with `unnorm_key`: bridge_orig, set_0"):
        lookup(many, None)
    with pytest.raises(UnknownNameError, match=r"Did you mean `bridge_orig`\?.*set_19") as caught:
        lookup(many, "bridge")
    assert "set_7" in str(caught.value)
    with pytest.raises(DataError, match="vertebra statistics FOLDER"):
        lookup({}, None)


def test_the_envelope_is_lerobots():
    pieces = [RNG.normal(loc, 1 + loc, size=(200, 4)) for loc in range(3)]
    joined = envelope([counted(piece) for piece in pieces])
    whole = np.concatenate(pieces)
    assert np.allclose(joined.action.mean, whole.mean(0))
    assert np.allclose(joined.action.std, whole.std(0))
    assert np.array_equal(joined.action.min, whole.min(0))
    plain = np.min([np.quantile(piece, 0.01, axis=0) for piece in pieces], axis=0)
    assert np.allclose(joined.action.q01, plain)
    assert (joined.action.q01 < np.quantile(whole, 0.01, axis=0)).all(), "an envelope lies further out"
    assert (joined.quantiles, joined.num_transitions) == ("envelope", 600)
    assert joined.to_json()["quantiles"] == "envelope"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q01": [0.0]}, "different lengths"),
        ({"q01": [9.0, 0.0]}, "`q01` lies above `q99` in dimension 0"),
        ({"std": [-1.0, 0.0]}, "negative"),
        ({"mean": ["a", "b"]}, "must be numbers"),
        ({"mean": [float("nan"), 0.0]}, "NaN"),
        ({"mean": [[0.0, 0.0]]}, "shape"),
        ({"mask": [1, 2]}, "true and false"),
        ({"mask": [True]}, "different lengths"),
    ],
)
def test_damage_is_named(change, message):
    fine = {"mean": [0.0, 0.0], "std": [1.0, 1.0], "q01": [-1.0, -1.0], "q99": [1.0, 1.0]}
    Moments.of(fine, "fine")
    with pytest.raises(DataError, match=message):
        Moments.of(fine | change, "damaged")


def test_other_things_are_no_statistics():
    for bad in ({"observation.state": {}}, [1], "text"):
        with pytest.raises(DataError, match="have no `action`"):
            DatasetStatistics.of(bad, "x")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="none of mean"):
        Moments.of({"median": [1]}, "x")
    with pytest.raises(DataError, match="one robot"):
        envelope([counted(np.zeros((3, 2))), counted(np.zeros((3, 4)))])
    with pytest.raises(DataError, match="`count` of every part"):
        envelope([DatasetStatistics(action=Moments(mean=np.zeros(2)))])
