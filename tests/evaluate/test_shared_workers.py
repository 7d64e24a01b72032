"""Workers that stay: one after the other they collect, evaluate, draw films, and notice when a policy has changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.evaluate.test_evaluation import evaluated, settings
from tests.evaluate.toys import FACTS, Looks
from tests.policies.models import counted, policy_model
from vertebra.errors import ConfigError
from vertebra.evaluate import evaluate_policy
from vertebra.evaluate.arms import arms_of
from vertebra.evaluate.asked import ASKED
from vertebra.simulate.collecting import collect
from vertebra.simulate.workers import Workers, working


def saved(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    shutil.rmtree(folder, ignore_errors=True)
    made = policy_model(chunk=3, dims=4, cameras=("side",), proprio=True, statistics={"metaworld": counted(4, 4, 1)})
    with torch.no_grad():
        for parameter in made.backbone.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    made.save(folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.usefixtures("draws")
def test_what_they_do_is_what_new_ones_would_do(tmp_path: Path):
    options = {"episodes": 2, "options": {"limit": 6, "size": 32}, "tasks": ("drawer-open", "faucet-open")}
    policy, alone, together = tmp_path / "policy", [], []
    with Workers(2) as team:
        collect("drawer-open", tmp_path / "shared", episodes=2, every=25, codec="image", size=32, workers=team)
        for seed in (0, 1):  # the second lies in the folder of the first
            saved(policy, seed)
            asked = settings(**options)
            together.append(evaluate_policy(str(policy), asked, tmp_path / f"shared-{seed}", workers=team))
            alone.append(evaluate_policy(str(policy), asked, tmp_path / f"alone-{seed}"))
            films = files(tmp_path / f"alone-{seed}" / "films")
            assert len(films) == 4
            assert files(tmp_path / f"shared-{seed}" / "films") == films
    collect("drawer-open", tmp_path / "plain", episodes=2, every=25, codec="image", size=32)
    assert files(tmp_path / "shared") == files(tmp_path / "plain")
    for mine, plain in zip(together, alone, strict=True):
        assert [one.same for one in mine.records] == [one.same for one in plain.records]
    assert [one.same for one in alone[0].records] != [one.same for one in alone[1].records]


def test_they_are_counted_as_they_are(tmp_path: Path):
    with Workers(2) as team, pytest.raises(ConfigError, match="workers=2: an object lives in this process"):
        evaluate_policy(Looks(), settings(), tmp_path / "out", workers=team)
    assert not (tmp_path / "out").exists()
    with Workers(1) as team, working(team) as same:
        assert same is team
        shared = [evaluate_policy(Looks(), settings(), tmp_path / name, workers=team, films=False) for name in "ab"]
    plain = evaluated(tmp_path / "plain")
    assert [one.same for one in shared[0].records] == [one.same for one in shared[1].records]
    assert [one.same for one in shared[0].records] == [one.same for one in plain.records]


def test_a_process_lets_go_of_the_policies_of_another_evaluation(monkeypatch: pytest.MonkeyPatch):
    """What a worker has loaded is that of one evaluation, whose settings it was loaded with."""
    loaded = []
    monkeypatch.setattr(
        "vertebra.interop.acting.policy", lambda name, settings: loaded.append(settings.outside) or Looks()
    )
    (arm,) = arms_of("", [FACTS["right"]])
    for evaluation, outside in ((1, "pass"), (1, "pass"), (2, "clamp"), (2, "clamp"), (1, "pass")):
        ASKED.begin(evaluation)
        ASKED.actor("folder", arm, settings(outside=outside))
    ASKED.forget()
    assert loaded == ["pass", "clamp", "pass"]
