"""Statistics for a folder that has none: the record alone is written, and the one before is kept."""

from __future__ import annotations

import hashlib

import pytest

import vertebra
from tests.policies.models import STATISTICS, TASK, counted, policy_model, seen
from vertebra.errors import CheckpointError, ConfigError, DataError, UnknownNameError
from vertebra.model.model import Model
from vertebra.policies.attach import BEFORE, attach_statistics, recorded


def prints(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    policy_model(statistics={}).save(tmp_path / "old")
    return tmp_path / "old"


def test_nothing_but_the_record_is_touched(folder):
    before = prints(folder)
    after = attach_statistics(folder, {"bridge": STATISTICS["bridge"]})
    now = prints(folder)
    assert {name for name in now if now[name] != before.get(name)} == {"vertebra.json", BEFORE}
    assert now[BEFORE] == before["vertebra.json"]
    assert recorded(folder) == after
    assert vertebra.policy(folder).act(seen(), TASK).shape == (1, 3)
    attach_statistics(folder, {"fractal": STATISTICS["fractal"]})
    assert prints(folder)[BEFORE] == before["vertebra.json"], "the first record is the one that is kept"
    assert sorted(recorded(folder).statistics) == ["bridge", "fractal"]


def test_the_same_name_is_not_replaced_in_silence(folder):
    attach_statistics(folder, {"bridge": STATISTICS["bridge"]})
    attach_statistics(folder, {"bridge": STATISTICS["bridge"]})
    with pytest.raises(ConfigError, match="has statistics of bridge, and others"):
        attach_statistics(folder, {"bridge": STATISTICS["fractal"]})
    attach_statistics(folder, {"bridge": STATISTICS["fractal"]}, overwrite=True)
    assert recorded(folder).statistics["bridge"] == STATISTICS["fractal"]


def test_another_robots_are_refused(folder, tmp_path):
    before = prints(folder)
    with pytest.raises(DataError, match="`x` is of actions of 7 numbers; this model makes 3"):
        attach_statistics(folder, {"x": counted(7, 4, 0)})
    assert prints(folder) == before
    policy_model(proprio=True).save(tmp_path / "proprio")
    with pytest.raises(DataError, match="proprio of 8 numbers; this model asks for 4"):
        attach_statistics(tmp_path / "proprio", {"x": counted(3, 8, 0)})
    without = {"action": STATISTICS["bridge"]["action"]}
    with pytest.raises(DataError, match="has no proprio"):
        attach_statistics(tmp_path / "proprio", {"x": without})


def test_a_folder_that_does_not_record_how_it_acts(tmp_path):
    model = policy_model()
    fields = {name: value for name, value in model.record["policy"].items() if name != "statistics"}
    Model(model.backbone, model.parts).save(tmp_path / "older")
    with pytest.raises(ConfigError, match="no record of actions"):
        attach_statistics(tmp_path / "older", STATISTICS)
    attach_statistics(tmp_path / "older", STATISTICS, record=fields)
    assert vertebra.policy(tmp_path / "older").keys == ["bridge", "fractal"]
    with pytest.raises(ConfigError, match="leave `record` out"):
        attach_statistics(tmp_path / "older", STATISTICS, record=fields)


def test_other_folders(tmp_path):
    with pytest.raises(CheckpointError, match="there is no folder"):
        recorded(tmp_path / "none")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="import it first"):
        recorded(tmp_path)


def test_unknown_fields_of_a_record(tmp_path):
    model = policy_model()
    Model(model.backbone, model.parts).save(tmp_path / "older")
    with pytest.raises((ConfigError, UnknownNameError), match="unknown setting `dim`"):
        attach_statistics(tmp_path / "older", STATISTICS, record={"head": "l1", "dim": 3})
