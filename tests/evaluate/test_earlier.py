"""An arm that an earlier evaluation has run: it is as if it had been run now, and what went otherwise is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.evaluate.test_evaluation import evaluated
from tests.evaluate.toys import Blind, Looks
from vertebra.errors import ConfigError, DataError, VertebraError
from vertebra.evaluate.records import place


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The blind twin's evaluation, of more tasks and episodes than are asked for later, with an arm of its own."""
    evaluated(tmp_path / "earlier", Blind(), tasks=("left", "right", "line/right"), arms=("frozen",))
    return tmp_path / "earlier"


def without_folders(results) -> dict:
    """Everything that does not hang on how long a decision took, or on where the arm's policy lay."""
    plain = results.to_json()
    plain.pop("settings")
    for one in (*plain["arms"], *plain["episodes"]):
        for name in ("milliseconds", "slowest", "model"):
            one.pop(name, None)
    return plain


@pytest.mark.parametrize("robots", [1, 3])
@pytest.mark.parametrize("episodes", [1, 5, 14])
def test_it_is_the_arm_run_now(episodes: int, robots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vertebra.interop.acting.policy", lambda name, settings: {"blind-folder": Blind()}[name])
    there = tmp_path / "there"
    evaluated(there, Blind(), robots=robots)
    policy, plain = Looks(), Looks()
    taken = evaluated(tmp_path / "out", policy, arms=(f"blind={there}", "swapped"), episodes=episodes, robots=robots)
    run = evaluated(tmp_path / "plain", plain, arms=("blind=blind-folder", "swapped"), episodes=episodes, robots=robots)
    assert without_folders(taken) == without_folders(run)
    assert [one.same for one in taken.records] == [one.same for one in run.records]
    assert policy.resets == plain.resets == 4 * episodes, "the policy's own arms alone are run"
    kept = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.json")}
    assert kept == {path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain").rglob("*.json")}


def test_it_stays_when_the_earlier_evaluation_is_gone(earlier: Path, tmp_path: Path):
    first = evaluated(tmp_path / "out", arms=(f"blind={earlier}",))
    assert json.loads((tmp_path / "out" / "episodes/blind/right/00003.json").read_text())["arm"] == "blind"
    policy = Looks()
    again = evaluated(tmp_path / "out", policy, arms=(f"blind={earlier}",))
    assert again.to_json() == first.to_json()
    assert policy.resets == 0
    shutil.rmtree(earlier)
    with pytest.raises(ConfigError, match="the policies: another one, or its files have changed"):
        evaluated(tmp_path / "out", arms=(f"blind={earlier}",))


def test_what_was_stopped_goes_on(earlier: Path, tmp_path: Path):
    class Stops(Looks):
        def reset(self):
            if self.resets == 9:
                raise KeyboardInterrupt
            super().reset()

    Stops.__name__ = "Looks"
    whole = evaluated(tmp_path / "whole", arms=(f"blind={earlier}", "frozen"))
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path / "out", Stops(), arms=(f"blind={earlier}", "frozen"))
    (tmp_path / "out" / "evaluation.json").write_text((tmp_path / "whole" / "evaluation.json").read_text())
    policy = Looks()
    results = evaluated(tmp_path / "out", policy, arms=(f"blind={earlier}", "frozen"))
    assert policy.resets == 2 * 28 - 9
    assert [one.same for one in results.records] == [one.same for one in whole.records]


def test_episodes_that_are_all_there_are_kept_all_the_same(earlier: Path, tmp_path: Path):
    """No episode of the policy is left to run, and those of the arm are still to be written."""
    evaluated(tmp_path / "out", arms=(f"blind={earlier}",), episodes=3)
    shutil.rmtree(tmp_path / "out" / "episodes" / "blind")
    evaluated(tmp_path / "out", arms=(f"blind={earlier}",), episodes=3)
    assert all(place(tmp_path / "out", "blind", task, n).is_file() for task in ("right", "left") for n in range(3))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 4}, "seed: there 3, here 4"),
        ({"robots": 2}, "robots: there 1, here 2"),
        ({"outside": "clamp"}, "outside: there 'pass', here 'clamp'"),
        ({"options": {"limit": 9}}, r"options: there \{\}, here \{'limit': 9\}"),
        ({"episodes": 15}, r"3 of 45 episodes were not run there \(first: right 14"),
        ({"tasks": ("right", "alone")}, r"14 of 28 episodes were not run there \(first: alone 0"),
    ],
)
def test_episodes_that_went_otherwise_are_refused(changes: dict, words: str, earlier: Path, tmp_path: Path):
    asked = {"tasks": ("right", "left", "line/right"), **changes}
    policy = Looks()
    with pytest.raises(ConfigError, match=rf"the arm `blind={earlier}`: .*{words}.*"):
        evaluated(tmp_path / "out", policy, arms=(f"blind={earlier}",), **asked)
    assert policy.resets == 0
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path):
    (tmp_path / "odd").mkdir()
    for wrong in ('{"settings": 3}', "[]", "{"):
        (tmp_path / "odd" / "evaluation.json").write_text(wrong)
        with pytest.raises(VertebraError, match=r"evaluation\.json"):
            evaluated(tmp_path / "out", arms=(f"blind={tmp_path / 'odd'}",))
    assert not (tmp_path / "out").exists()


def test_an_evaluation_is_another_when_its_policy_was(earlier: Path, tmp_path: Path):
    """The same folder, made anew of another policy: what was compared with the old one is not gone on with."""
    evaluated(tmp_path / "out", arms=(f"blind={earlier}",))
    shutil.rmtree(earlier)
    evaluated(earlier, Looks(), tasks=("left", "right"))
    with pytest.raises(ConfigError, match="the policies: another one"):
        evaluated(tmp_path / "out", arms=(f"blind={earlier}",))


def test_records_of_other_episodes_are_not_taken(earlier: Path, tmp_path: Path):
    path = place(earlier, "policy", "right", 2)
    right = json.loads(path.read_text())
    for changes in ({"seed": 5}, {"task": "left"}, {"number": 3}, {"arm": "frozen"}):
        path.write_text(json.dumps({**right, **changes}))
        with pytest.raises(DataError, match=r"00002.json` is the record of another episode.*Delete it"):
            evaluated(tmp_path / "out", arms=(f"blind={earlier}",))
    evaluated(tmp_path / "out")
    path = place(tmp_path / "out", "policy", "right", 2)
    path.write_text(json.dumps({**right, "seed": 5}))
    with pytest.raises(DataError, match=r"expected the seed .*Delete it"):
        evaluated(tmp_path / "out")


def test_a_folder_has_one_writer(tmp_path: Path):
    """Two evaluations would mix their episodes, and the numbers of both would be wrong."""

    class Meanwhile(Looks):
        tried = 0

        def reset(self):
            self.tried += 1
            if self.tried == 1:
                with pytest.raises(ConfigError, match="another"):
                    evaluated(tmp_path / "out", seed=9)
            super().reset()

    policy = Meanwhile()
    evaluated(tmp_path / "out", policy, episodes=2)
    assert policy.tried > 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "episodes", "evaluation.json", "results.json", "report.html"
    }  # fmt: skip
