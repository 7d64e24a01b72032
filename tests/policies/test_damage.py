"""Records, statistics and golden pairs in which anything may stand: an error of ours, or a policy that acts; nothing else."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from typing import Any

import numpy as np
import pytest

from tests.policies.models import TASK, policy_model, seen
from vertebra.action.files import read_statistics
from vertebra.action.record import drawn
from vertebra.errors import VertebraError
from vertebra.model.model import Model
from vertebra.policies.golden import check_golden, golden_pair
from vertebra.policies.golden_files import read_golden, write_golden
from vertebra.policies.policy import Policy

ODD: list[Any] = [
    None, True, 0, -1, 1e309, float("nan"), 10**30, "", "abc", "\ud800", [], [[]], [1, [2]], {}, {"a": 1}, 3.5, "none",
    [None], ["a", 1], [[1.0], [2.0, 3.0]], 7, [1e300, -1e300, 0],
]  # fmt: skip


def leaves(tree: Any, at: tuple = ()) -> list[tuple]:
    """Every place in a tree."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at, *(place for name, child in children for place in leaves(child, (*at, name)))]


def damaged(tree: Any, rng: random.Random) -> Any:
    """A copy with one or two places that hold something else, or nothing."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.choice([place for place in leaves(tree) if place])
        holder = tree
        for name in place[:-1]:
            holder = holder[name]
        if rng.random() < 0.2:
            del holder[place[-1]]
        else:
            holder[place[-1]] = copy.deepcopy(rng.choice(ODD))
    return tree


@pytest.mark.parametrize("head", ["tokens", "parallel", "l1"])
def test_records(head):
    rng = random.Random(head)
    model = policy_model(head=head, proprio=head == "parallel", chunk=2, images="after")
    observation = seen(proprio=head == "parallel")
    acted = 0
    for _ in range(100):
        record = damaged(model.record["policy"], rng)
        try:
            policy = Policy(Model(model.backbone, model.parts, record={"policy": record}, heads=model.heads).eval())
            drawn(policy.record)
            chunk = policy.act(observation, TASK, "bridge")
            assert np.isfinite(chunk).all()
            acted += 1
        except VertebraError:
            pass
    assert 0 < acted < 100


def test_statistics(tmp_path):
    rng = random.Random(0)
    whole = policy_model().record["policy"]["statistics"]
    read = 0
    for _ in range(200):
        (tmp_path / "s.json").write_text(json.dumps(damaged(whole, rng)))
        try:
            read_statistics(tmp_path / "s.json")
            read += 1
        except VertebraError:
            pass
    assert 0 < read < 200


def test_golden_pairs(tmp_path):
    rng = random.Random(0)
    model = policy_model(chunk=2)
    policy = Policy(model)
    model.save(tmp_path / "policy")
    write_golden(golden_pair(policy, seen(), TASK, "bridge"), tmp_path / "policy")
    file = tmp_path / "policy" / "golden" / "golden.json"
    whole = json.loads(file.read_text())
    held = 0
    for _ in range(100):
        file.write_text(json.dumps(damaged(whole, rng)))
        with contextlib.suppress(VertebraError):
            held += check_golden(policy, read_golden(tmp_path / "policy")).holds
    assert 0 < held < 100
