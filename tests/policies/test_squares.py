"""What a run of `squares` leaves is a policy, with its golden pair."""

from __future__ import annotations

import numpy as np
import pytest

import vertebra
from vertebra.checks.run import check
from vertebra.errors import ConfigError
from vertebra.policies.golden_files import read_golden
from vertebra.tasks.acting import acting
from vertebra.tasks.squares import DIMS, Squares, actions_of, hand


def test_a_run_leaves_a_policy(tmp_path):
    changes = [
        "steps=1",
        "data.count=16",
        "data.head=l1",
        "data.chunk=3",
        "eval.every=0",
        "optim.batch=4",
        "optim.warmup=0",
        "data.options={hidden: 64}",
    ]
    vertebra.train("squares-align", changes, out=tmp_path / "run")
    kept = read_golden(tmp_path / "run" / "model")
    assert kept.instruction.startswith("Reach the ")
    policy = vertebra.policy(tmp_path / "run", golden="require")
    assert np.allclose(policy.act(kept.observation, kept.instruction), kept.actions, atol=1e-4)
    squares = Squares(policy.model, 4, way=acting("l1", chunk=3, dims=DIMS))
    for episode, values in zip(squares.episodes, actions_of(policy.model, squares, range(4)), strict=True):
        chunk = policy.act(np.asarray(episode.image()), episode.instruction)
        assert np.allclose(chunk, hand(values), atol=1e-4), "in pixels, as the statistics say"
    assert statuses(tmp_path / "run") == {"golden": "pass", "looks": "pass"}
    vertebra.train(
        "squares-l1", [*changes, f"model.start={tmp_path}/run/model", "tune.stage=lora"], out=tmp_path / "lora"
    )
    assert statuses(tmp_path / "lora") == {"golden": "pass", "looks": "pass"}
    assert vertebra.policy(tmp_path / "lora", golden="require").record.head == "l1"
    with pytest.raises(ConfigError, match="merge it first"):
        check(tmp_path / "lora")


def statuses(run) -> dict[str, str]:
    return {row.name: row.status for row in check(run, only=["golden", "looks"]).results}
