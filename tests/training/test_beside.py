"""Runs beside each other, and beside their workers: one writer a folder, and signals that reach a whole group."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.beside", str(tmp_path_factory.mktemp("runs"))]
    paths = [str(root / "src"), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    made = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-4000:]
    return json.loads(made.stdout.splitlines()[-1])


def test_sigterm_to_a_run_and_its_workers_saves_and_ends(runs: dict[str, Any]):
    for found in runs["group"]:
        assert found["code"] == 143, found["output"]
        assert found["good"] == found["last"] >= 1
        assert found["output"].count("SIGTERM: saving after this step") == 1
        assert f"stopped at step {found['last']} of 100000; go on: vertebra train " in found["output"]
        assert "DataLoader worker" not in found["output"], "a worker died of it"
        assert "run.lock" not in found["left"]


def test_the_second_run_is_refused_and_learns_who_has_the_folder(runs: dict[str, Any]):
    first = runs["seconds"]["first"]
    for found in runs["seconds"]["others"]:
        assert found["code"] == 1, found["output"]
        holder = f"is being written by another run: process {first['pid']} on `{socket.gethostname()}`, since 2"
        assert holder in found["output"]
        assert "Traceback" not in found["output"]
    assert runs["seconds"]["going"]


def test_the_folder_of_a_killed_run_is_free_at_once(runs: dict[str, Any]):
    """Its workers live on for some seconds; they hold nothing."""
    assert runs["seconds"]["first"]["code"] == -9
    resumed = runs["seconds"]["resumed"]
    assert resumed["code"] == 0, resumed["output"]
    assert resumed["last"] == runs["seconds"]["first"]["last"] + 2
    assert [name for name in resumed["left"] if name.startswith(".") or name == "run.lock"] == []


def test_of_two_that_begin_together_one_trains(runs: dict[str, Any]):
    done, refused = sorted(runs["together"], key=lambda found: found["code"])
    assert (done["code"], refused["code"]) == (0, 1), done["output"] + refused["output"]
    assert "is being written by another run" in refused["output"] or "exists and is not empty" in refused["output"]
    assert done["last"] == 3
