"""The demo's main job in small: one task from the expert's demonstrations to a page of films, by the code of the demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from vertebra.cli.demo_robot import Moved, RobotSizes, robot
from vertebra.episodes import open_episodes
from vertebra.simulate import kept


def test_the_whole_chain_on_one_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("metaworld")
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    sizes = RobotSizes(tasks=("faucet-open",), demonstrations=2, steps=3, episodes=1, spread=2.0, workers=1, limit=40)
    found = robot(Console(width=200), tmp_path / "out", sizes)
    folder = tmp_path / "out" / "robot"
    shown = open_episodes(folder / "demonstrations")
    assert [one.tasks for one in shown.episodes] == [("open the faucet",)] * 2
    assert "2 demonstrations" in capsys.readouterr().out
    arms = [one["arm"] for one in results(folder)["arms"]]
    assert arms == ["policy", "blind", "swapped"]
    blind_twin = json.loads((folder / "wide-blind" / "results.json").read_text())
    assert blind_twin["policy"] == str(folder / "blind")
    assert [one["seed"] for one in blind_twin["episodes"]] == [
        one["seed"] for one in results(folder)["episodes"] if one["arm"] == "blind"
    ]
    assert found.report.is_file()
    assert "<video" in found.report.read_text()
    assert {found.stock, found.wide, found.blind, found.swapped} <= {0.0, 1.0}
    blind = json.loads((folder / "blind" / "model" / "vertebra.json").read_text())["record"]["policy"]
    assert blind["cameras"] == []
    seen = json.loads((folder / "policy" / "model" / "vertebra.json").read_text())["record"]["policy"]
    assert seen["view"] == shown.view == {"size": 64, "bare_wrist": True}
    opened = [dict(options) for _, options, _ in kept._open if "cameras" in dict(options)]
    looked = [one for one in opened if one["cameras"] == ("side", "gripperPOV")]
    assert looked
    assert all(one["bare_wrist"] and one["size"] == 64 for one in looked), "images as in its demonstrations"


def results(folder: Path) -> dict:
    return dict(json.loads((folder / "wide" / "results.json").read_text()))


@pytest.mark.parametrize(
    ("numbers", "good"),
    [
        ((0.9, 0.8, 0.3, 0.1), True),
        ((0.81, 0.8, 0.3, 0.1), False),
        ((0.9, 0.69, 0.3, 0.1), False),
        ((0.9, 0.8, 0.51, 0.1), False),
        ((0.9, 0.8, 0.3, 0.21), False),
        ((0.9, 0.8, 0.3, None), True),
    ],
)
def test_it_is_good_where_the_robot_does_looks_and_listens(numbers, good: bool):
    stock, wide, blind, swapped = numbers
    made = Moved(stock=stock, wide=wide, blind=blind, swapped=swapped, report=Path("x"), seconds=1)
    assert made.good == good
