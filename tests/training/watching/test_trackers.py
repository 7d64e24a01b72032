"""Trackers: one word, their own environment variables, one id for a run and its resumes; a missing one is named.

The tools themselves are no dependency: modules that note what they are told stand at their interface.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.models import config
from vertebra.errors import ConfigError, MissingPartError
from vertebra.training.watching.trackers import open_tracker, require_tracker, run_id

NOTED = """
calls = []

class Run:
    def log(self, values):
        calls.append(("log", values))

    def finish(self):
        calls.append(("finish",))

    def define_metric(self, name, **options):
        calls.append(("define_metric", name))

    # what TensorBoard's writer has
    def add_scalar(self, name, value, step):
        calls.append(("add_scalar", name, value, step))

    def add_text(self, name, text):
        calls.append(("add_text", name))

    def flush(self):
        pass

    close = finish


def init(**options):
    calls.append(("init", options))
    return Run()


def log(values, step):
    calls.append(("log", values, step))


def finish():
    calls.append(("finish",))


def SummaryWriter(place, purge_step):
    calls.append(("writer", place, purge_step))
    return Run()


class errors:
    class Error(Exception):
        pass
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`tool("wandb")`: a module of this name that notes its calls."""

    def make(name: str) -> Any:
        place = tmp_path / "tools"
        place.mkdir()
        (place / f"{name}.py").write_text(NOTED)
        monkeypatch.syspath_prepend(str(place))
        monkeypatch.delitem(sys.modules, name, raising=False)
        made = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, made)
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", made)
        return made

    return make


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "trackio"])
def test_a_tracker_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match=rf"watch\.report_to={name} needs `{name}`.*pip install {name}"):
        require_tracker(config(watch__report_to=name))


def test_weights_and_biases(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wandb = tool("wandb")
    monkeypatch.setenv("WANDB_PROJECT", "hands")
    monkeypatch.setenv("WANDB_ENTITY", "lab")
    run = config(watch__report_to="wandb")
    for step in (0, 4):  # begun, then resumed
        tracker = open_tracker(run, tmp_path, step=step)
        assert tracker is not None
        tracker.log({"train/loss": 1.0}, step + 2)
        tracker.close()
    (first, _, logged, ended), (second, *_) = wandb.calls[:4], wandb.calls[4:]
    assert first[1]["project"] == "hands"
    assert first[1]["entity"] == "lab"
    assert first[1]["config"]["optim"]["lr"] == 1e-3
    assert first[1]["resume"] == "allow"
    assert first[1]["id"] == second[1]["id"] == run_id(tmp_path)
    assert logged == ("log", {"train/loss": 1.0, "step": 2})
    assert ended == ("finish",)


def test_an_id_of_ones_own(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wandb = tool("wandb")
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    open_tracker(config(watch__report_to="wandb"), tmp_path, step=0)
    monkeypatch.delenv("WANDB_RUN_ID")
    open_tracker(config(watch__report_to="wandb"), tmp_path, step=2)
    assert [call[1]["id"] for call in wandb.calls if call[0] == "init"] == ["mine", "mine"]
    assert wandb.calls[0][1]["project"] == "vertebra"


def test_nobody_is_logged_in(tool: Any, tmp_path: Path):
    wandb = tool("wandb")

    def refused(**options: Any) -> None:
        raise wandb.errors.Error("no API key")

    wandb.init = refused
    with pytest.raises(ConfigError, match=r"no API key.*wandb login.*WANDB_MODE=offline"):
        open_tracker(config(watch__report_to="wandb"), tmp_path, step=0)


def test_tensorboard_takes_back_what_was_logged_after_the_checkpoint(tool: Any, tmp_path: Path):
    board = tool("tensorboard")
    run = config(watch__report_to="tensorboard")
    for step in (0, 4):
        tracker = open_tracker(run, tmp_path, step=step)
        assert tracker is not None
        tracker.log({"train/loss": 2.0}, step + 1)
        tracker.close()
    place = str(tmp_path / "tensorboard")
    assert [call for call in board.calls if call[0] == "writer"] == [("writer", place, None), ("writer", place, 5)]
    assert ("add_scalar", "train/loss", 2.0, 5) in board.calls


def test_trackio(tool: Any, tmp_path: Path):
    trackio = tool("trackio")
    for step in (0, 4):
        tracker = open_tracker(config(watch__report_to="trackio"), tmp_path, step=step)
        assert tracker is not None
        tracker.log({"eval/loss": 3.0}, step)
        tracker.close()
    names = [call[1]["name"] for call in trackio.calls if call[0] == "init"]
    assert names == [f"test-{run_id(tmp_path)}"] * 2
    assert ("log", {"eval/loss": 3.0}, 4) in trackio.calls


def test_a_run_tells_its_tracker(tool: Any, tmp_path: Path):
    from tests.training.test_run import tiny_with
    from vertebra.training.run import train

    trackio = tool("trackio")
    run = tiny_with(tmp_path, watch={"report_to": "trackio"}, save={"every": 2})
    train(run)
    reported = [call for call in trackio.calls if call[0] == "log"]
    assert [step for _, values, step in reported if "train/loss" in values] == [1, 2, 3, 4]
    assert [step for _, values, step in reported if "eval/loss" in values] == [2, 4]
    assert all(name.startswith(("train/", "eval/")) for _, values, _ in reported for name in values)
    assert trackio.calls[-1] == ("finish",)
