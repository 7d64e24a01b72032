"""Killed at twenty-four positions, steps and bytes, once and twice in a row, every run ends as if nobody had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

COUNT = 24


def test_a_killed_run_ends_as_if_nothing_had_been(tmp_path: Path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.killed", str(tmp_path), "7", str(COUNT)]
    paths = [str(root / "src"), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    made = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-4000:]
    output = json.loads(made.stdout.splitlines()[-1])
    assert len(output["done"]) == COUNT
    assert [(event, byte) for event, byte, same in output["done"] if not same] == []
    assert output["damaged"] == []
    assert output["inside"] >= 6, "too few checkpoints were hit while they were written"
    assert output["torn"] >= 2, "no metrics were cut short"
    assert output["twice"] >= 6
