"""Every arm is begun before any is gone on with: a policy that cannot be loaded costs no other arm's hours."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.evaluate.test_evaluation import evaluated, settings
from tests.evaluate.toys import FACTS, Looks
from tests.policies.models import TASK, image, policy_model
from vertebra.errors import ConfigError, VertebraError
from vertebra.evaluate.actor import Actor
from vertebra.evaluate.arms import arms_of
from vertebra.evaluate.remote import _facts
from vertebra.evaluate.running import _each_arm_first, _missing
from vertebra.policies.policy import Policy
from vertebra.policies.settings import PolicySettings


def test_a_wrong_arm_leaves_nothing_and_costs_an_episode(tmp_path):
    policy = Looks()
    with pytest.raises(VertebraError):
        evaluated(tmp_path / "out", policy, arms=("frozen", "blind=" + str(tmp_path / "nowhere")))
    assert policy.resets == 2, "one episode of each arm before it"
    assert not (tmp_path / "out").exists(), "the same folder takes the arm as it was meant"
    assert evaluated(tmp_path / "out", policy, arms=("frozen",), episodes=2).arms[1].arm.name == "frozen"


def test_everything_is_run_once(tmp_path):
    tasks = [FACTS["right"], FACTS["left"]]
    arms = arms_of("frozen,swapped", tasks)
    plain = list(_missing(0, "policy", settings(robots=4), tasks, arms, {}))
    batches, firsts = _each_arm_first(plain)
    assert [one.arm.name for one in batches[:firsts]] == ["policy", "frozen", "swapped"]
    assert sorted(map(repr, batches)) == sorted(map(repr, plain))


def test_a_policy_of_ours_gives_as_many_actions_as_an_arm_asks_for():
    """Whatever its record carries out; and more than a chunk has are refused, not counted as less."""
    policy = Policy(policy_model(chunk=4, execute=2), settings=PolicySettings())
    seen = {"images": {"image": image()}}
    for execute in (1, 2, 3, 4):
        (chunk,) = Actor(policy, key="bridge").carrying_out(execute).decide([seen], [TASK], [0])
        assert len(chunk.actions) == execute
    with pytest.raises(ConfigError, match="execute=5, and this policy makes chunks of 4"):
        Actor(policy, key="bridge").carrying_out(5)


def test_a_server_that_gives_fewer_actions_than_an_arm_asks_for():
    about = {
        "vertebra": "0",
        "cameras": [],
        "dims": 1,
        "proprio": 1,
        "history": 0,
        "frame": "absolute",
        "view": {},
        "execute": 3,
    }
    served = SimpleNamespace(record=_facts(about), act=Looks().act, reset=Looks().reset)
    Actor(served).carrying_out(3)
    with pytest.raises(ConfigError, match=r"`chunk=4`: the server gives 3 actions at a time.*--execute 4"):
        Actor(served).carrying_out(4)
