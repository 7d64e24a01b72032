"""Several processes, each running jobs of `worker.py`, and how their curves are compared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.worker import settings_of
from tests.training.models import Words, trainer
from vertebra.training import checkpoint
from vertebra.training.watching.metrics import read, without_clock

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    paths = [str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def launch(count: int, *arguments: Any, torchrun: bool = False) -> None:
    command = [sys.executable, "-W", "ignore", "-m"]
    if torchrun:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m"]
    command += ["tests.distributed.worker", *([] if torchrun else ["--forks", str(count)]), *map(str, arguments)]
    made = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-6000:]


def alone(folder: Path, name: str, resume: Path | None = None) -> Any:
    """The run of a job on one process, its curve under `alone-…`."""
    made = trainer(folder / f"alone-{name}", settings_of(name, 1), samples=Words(40))
    made.train(resume_from_checkpoint=str(resume) if resume else None)
    return made


def step_3(folder: Path) -> Path:
    place = folder / "checkpoints" / checkpoint.name_of(3)
    assert not checkpoint.faults(place)
    return place


def curve(folder: Path) -> list[dict[str, Any]]:
    return [without_clock(row) for row in read(folder / "metrics.jsonl")]


def assert_same_curve(found: list[dict[str, Any]], expected: list[dict[str, Any]], *, tokens: bool = True) -> None:
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for a, b in zip(found, expected, strict=True):
        assert a["tokens"] == b["tokens"] or not tokens
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)
