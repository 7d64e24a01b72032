"""Two and four gloo processes: the curve of one process, and checkpoints that move between numbers of ranks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.models import Words, config, trainer
from vertebra.train import checkpoint
from vertebra.train.metrics import read, without_clock

pytestmark = pytest.mark.distributed
ROOT = Path(__file__).parents[2]


def launch(count: int, *arguments: Any) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={count}", "-m", "tests.distributed.worker", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-6000:]


def curve(folder: Path) -> list[dict[str, Any]]:
    return [without_clock(row) for row in read(folder / "metrics.jsonl")]


def assert_same_curve(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for a, b in zip(found, expected, strict=True):
        assert a["tokens"] == b["tokens"]
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, two with copies, two with shards: the same run."""
    folder = tmp_path_factory.mktemp("parallel")
    alone = trainer(folder / "alone", config(optim__batch=8, steps=6, save__every=3, watch__every=1), samples=Words(40))
    alone.train()
    launch(2, folder, "ddp", "fsdp")
    return folder


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_have_the_curve_of_one(kind: str, runs: Path):
    assert_same_curve(curve(runs / kind), curve(runs / "alone"))


def test_sharded_checkpoints_resume_on_one(runs: Path, tmp_path: Path):
    saved = runs / "fsdp" / "checkpoints" / checkpoint.name_of(3)
    assert not checkpoint.faults(saved)
    assert (saved / "shards").is_dir()
    made = trainer(tmp_path, config(optim__batch=8, steps=6, watch__every=1), samples=Words(40))
    made.train(resume_from_checkpoint=str(saved))
    assert_same_curve(curve(tmp_path), curve(runs / "alone")[3:])


def test_sharded_checkpoints_resume_on_four(runs: Path, tmp_path: Path):
    shutil.copytree(runs / "fsdp" / "checkpoints", tmp_path / "fsdp" / "checkpoints")
    launch(4, tmp_path, "resume-fsdp")
    assert_same_curve(curve(tmp_path / "fsdp"), curve(runs / "alone")[3:])


def test_copies_resume_on_one(runs: Path, tmp_path: Path):
    saved = runs / "ddp" / "checkpoints" / checkpoint.name_of(3)
    made = trainer(tmp_path, config(optim__batch=8, steps=6, watch__every=1), samples=Words(40))
    made.train(resume_from_checkpoint=str(saved))
    assert_same_curve(curve(tmp_path), curve(runs / "alone")[3:])
    ours = dict(made._learner.model.named_parameters())
    theirs = checkpoint.read_weights(runs / "ddp" / "checkpoints" / checkpoint.name_of(6))
    assert all(torch.allclose(ours[n], theirs[n], atol=1e-5) for n in theirs)
