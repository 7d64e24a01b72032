"""The record of a policy: as it was after JSON, and refused with everything that is wrong with it."""

from __future__ import annotations

import json

import pytest

from vertebra.action.record import POLICY, ActionRecord, segment_of
from vertebra.errors import ConfigError

OPENVLA = ActionRecord(
    head="tokens",
    dims=7,
    bins={"scheme": "openvla", "count": 256, "vocabulary": 32000},
    template="In: What action should the robot take to {instruction}?\nOut:",
    raw=True,
    lower=True,
    lead=(29871,),
    statistics={"bridge_orig": {"action": {"q01": [0.0] * 7, "q99": [1.0] * 7}, "num_transitions": 9}},
)


def test_it_survives_json():
    oft = ActionRecord(
        head="l1", dims=7, chunk=8, cameras=("full", "wrist"), proprio=8, tail=(2,), attention="row",
        normalization=("quantile",) * 6 + ("none",), frame_dims=(True,) * 6 + (False,),
    )  # fmt: skip
    for record in (OPENVLA, oft):
        written = json.loads(json.dumps({POLICY: record.to_json()}))
        assert ActionRecord.of(written) == record


def test_what_is_asked():
    text = "In: What action should the robot take to pick up {it} 'n go?\nOut:"
    assert OPENVLA.asked("Pick up {IT} 'n go") == text
    assert [segment_of(name) for name in ("image", "wrist")] == ["image", "image:wrist"]


def test_a_model_without_one_is_no_policy():
    with pytest.raises(ConfigError, match=r"`there` has no record of actions"):
        ActionRecord.of({}, where="`there`")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "l1"}, "needs no `bins`"),
        ({"head": "token"}, "head"),
        ({"bins": None}, "needs `bins`"),
        ({"execute": 2}, "execute=2; expected 1 to 1"),
        ({"steps": 4}, "only `flow` takes steps"),
        ({"tail": [2]}, "has none"),
        ({"images": "after"}, "`raw` has none"),
        ({"template": "go"}, "no place for"),
        ({"cameras": ["a", "a"]}, "each once"),
        ({"normalization": ["none"] * 6}, "6 entries for 7"),
        ({"proprio_normalization": ["none"]}, "1 entries for 0"),
        ({"frame_dims": [True]}, "1 entries for 7"),
        ({"dims": 0}, "dims"),
        ({"version": 2}, "upgrade vertebra"),
        ({"dim": 7}, "unknown setting `dim`"),
    ],
)
def test_damage_is_named(change, message):
    with pytest.raises(ConfigError, match=message):
        ActionRecord.of({POLICY: OPENVLA.to_json() | change})


def test_all_faults_come_at_once():
    with pytest.raises(ConfigError) as caught:
        ActionRecord.of({POLICY: OPENVLA.to_json() | {"execute": 9, "template": "go", "steps": 1}})
    assert str(caught.value).count("\n") >= 3
