"""A run on a terminal: its display, Ctrl-C, Ctrl-C again, SIGTERM, and a disk that fills; real processes and signals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.terminal", str(tmp_path_factory.mktemp("runs"))]
    paths = [str(root / "src"), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("PYTHONUNBUFFERED", None)  # as users have it: signals meet Python's buffers
    made = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-4000:]
    return json.loads(made.stdout.splitlines()[-1])


def test_the_display_says_step_loss_rate_speed_and_time_left(runs: dict[str, Any]):
    shown = runs["interrupted"]["shown"]
    line = r"training ━+ +\d+/100000 +loss \d+\.\d{4}  lr \d\.\d\de-\d\d  [\d,]+ tokens/s +[\d:]+ left"
    assert re.search(line, shown), shown


def test_ctrl_c_saves_and_leaves(runs: dict[str, Any]):
    found = runs["interrupted"]
    assert found["code"] == 130, "what follows `train &&` must not begin"
    assert found["good"] == found["last"] >= 5
    assert "SIGINT: saving after this step" in found["shown"]
    assert f"stopped at step {found['last']} of 100000; go on: vertebra train " in found["shown"]


def test_sigterm_saves_and_leaves(runs: dict[str, Any]):
    found = runs["terminated"]
    assert found["code"] == 143
    assert found["good"] == found["last"] >= runs["interrupted"]["last"] + 3
    assert "going on from" in found["shown"]


def test_a_second_ctrl_c_leaves_at_once(runs: dict[str, Any]):
    found = runs["twice"]
    assert found["code"] == 130
    assert "stopped at once; the last checkpoint is as it was" in found["shown"]
    assert found["good"] is not None
    assert found["good"] <= found["last"]


def test_ctrl_c_before_the_first_step_leaves_nothing(runs: dict[str, Any]):
    found = runs["early"]
    assert (found["code"], found["left"]) == (130, False), found["shown"]


def test_a_disk_that_fills(runs: dict[str, Any]):
    found = runs["full"]
    assert found["code"] == 1
    assert "the checkpoint of step 8 cannot be written" in found["shown"]
    assert "make room, then go on with --resume" in found["shown"]
    assert "Traceback" not in found["shown"]
    assert found["checkpoints"] == [4]
    assert found["good"] == 4
