"""`vertebra train --nproc`: what torchrun does, a message in place of a wall, and signals that reach every process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed import whole
from tests.distributed.launched import assert_same_curve, curve, environment, launch
from tests.training.terminal import LONG
from vertebra.backbone.weights import mapped_tensors
from vertebra.cli import launch as launching
from vertebra.errors import CheckpointError
from vertebra.training import checkpoint
from vertebra.training.run import train
from vertebra.training.scale.export import export

pytestmark = pytest.mark.distributed


def command(folder: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", "from vertebra.cli.main import run; run()", "train", str(whole.RECIPE), "--tiny"]
    line += ["--nproc", "2", "--out", str(folder)]
    for setting in (*whole.SETTINGS, *arguments):
        line += ["--set", setting]
    return subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tiny recipe in shards by `--nproc`, and on one process."""
    folder = tmp_path_factory.mktemp("nproc")
    made = command(folder / "nproc", "parallel.kind=fsdp")
    assert made.returncode == 0, made.stderr
    assert "4 steps; evaluation: loss" in made.stdout
    train(whole.tiny(folder / "alone", batch=4))
    return folder


def test_a_whole_run_in_shards_is_that_of_one_process(sharded: Path):
    found, alone = ([row for row in curve(sharded / run) if "loss" in row] for run in ("nproc", "alone"))
    assert_same_curve(found, alone, tokens=False)  # rows that fill the last step up are tokens without weight
    ours, theirs = mapped_tensors(sharded / "nproc" / "model"), mapped_tensors(sharded / "alone" / "model")
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in theirs)
    names = [{p.name for p in (sharded / run).rglob("*") if p.is_file()} for run in ("nproc", "alone")]
    assert names[0] - {"optimizer-shards"} >= {"report.html", "loss.png", "README.md", "samples.json"}
    before = [(sharded / run / "samples.json").read_text() for run in ("nproc", "alone")]
    assert before[0].split('"after"')[0] == before[1].split('"after"')[0]


def test_it_is_what_torchrun_does(sharded: Path, tmp_path: Path):
    launch(2, tmp_path, "whole:in_shards", torchrun=True)
    assert curve(tmp_path / "whole-torchrun") == curve(sharded / "nproc")


def test_any_checkpoint_becomes_a_model(sharded: Path, tmp_path: Path):
    for run in ("nproc", "alone"):
        export(sharded / run, tmp_path / run, step=2)
        assert (tmp_path / run / "README.md").is_file()
    ours, theirs = mapped_tensors(tmp_path / "nproc"), mapped_tensors(tmp_path / "alone")
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in theirs)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3\. Steps: 2, 4"):
        export(sharded / "nproc", tmp_path / "more", step=3)
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        export(sharded / "nproc", tmp_path / "nproc")
    with pytest.raises(CheckpointError, match="holds no run"):
        export(tmp_path, tmp_path / "more")
    shutil.rmtree(tmp_path / "nproc")
    export(sharded / "nproc", tmp_path / "nproc")
    last = mapped_tensors(tmp_path / "nproc")
    assert not all(torch.equal(last[name], ours[name]) for name in last if name in ours)
    assert checkpoint.newest_good(sharded / "nproc" / "checkpoints") is not None


def test_a_failure_is_one_message(tmp_path: Path):
    """Two ranks have one sample: both fail, and one of them says it."""
    made = command(tmp_path / "run", "data.limit=1")
    assert made.returncode == 1
    assert "1 samples for 2 ranks" in made.stderr
    assert made.stderr.count("error:") == 1
    assert "Traceback" not in made.stderr


KILLED = """
import os, signal, sys
from vertebra.cli import launch, parent
launch._CHILD = sys.argv[1]
launch.launch(2, [])
"""
RANK = """
import os, sys, time
from vertebra.cli import parent
{before}
parent.die_with_launcher()
open(f"{place}/" + os.environ["RANK"], "w").write(str(os.getpid()))
time.sleep(600)
"""


def lives(process: int) -> bool:
    """Whether it runs: one that was killed and that nobody waits for is still in the table."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("before", ["", "parent._by_kernel = lambda: False"], ids=["kernel", "pipe"])
def test_ranks_die_with_a_killed_launcher(before: str, tmp_path: Path):
    code = RANK.format(before=before, place=tmp_path)
    with subprocess.Popen([sys.executable, "-c", KILLED, code], env=environment()) as launcher:
        while not all((tmp_path / name).is_file() and (tmp_path / name).read_text() for name in "01"):
            assert launcher.poll() is None
            time.sleep(0.02)
        ranks = [int((tmp_path / name).read_text()) for name in "01"]
        assert all(lives(rank) for rank in ranks)
        launcher.kill()
    while any(lives(rank) for rank in ranks):  # no bound but that of the test itself
        time.sleep(0.02)


def test_a_run_of_two_ranks_ends_with_its_launcher_and_frees_its_folder(tmp_path: Path):
    """SIGKILL while it trains; the next run has the folder. SIGTERM: all save together, and the exit code says that."""
    line = [sys.executable, "-c", "from vertebra.cli.main import run; run()", "train", str(whole.RECIPE), *LONG]
    line += ["--nproc", "2", "--out", str(tmp_path / "run")]

    def killed_at(step: int, number: int, *more: str) -> tuple[int, str]:
        with subprocess.Popen([*line, *more], env=environment(), stderr=subprocess.PIPE, text=True) as made:
            while max((row["step"] for row in curve(tmp_path / "run")), default=0) < step:
                assert made.poll() is None, made.stderr and made.stderr.read()
                time.sleep(0.05)
            made.send_signal(number)
            text = made.communicate()[1]
        return made.returncode, text

    assert killed_at(3, signal.SIGKILL)[0] == -signal.SIGKILL
    before = curve(tmp_path / "run")[-1]["step"]
    code, text = killed_at(before + 2, signal.SIGTERM, "--resume")
    assert code == 128 + signal.SIGTERM, text
    assert "Traceback" not in text
    assert "error" not in text
    last = curve(tmp_path / "run")[-1]["step"]
    assert checkpoint.newest_good(tmp_path / "run" / "checkpoints").name == checkpoint.name_of(last)
    assert not (tmp_path / "run" / "run.lock").exists()


def pretend(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Processes that run this in place of a command."""
    monkeypatch.setattr(launching, "_CHILD", f"import os, signal, sys, time; rank = int(os.environ['RANK'])\n{code}")


def test_a_rank_that_dies_takes_the_others_along(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    pretend(monkeypatch, "if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)")
    assert launching.launch(3, []) == 128 + signal.SIGKILL
    output = capfd.readouterr().err
    assert "rank 1 of 3 was killed by SIGKILL (is there enough memory?); the others were ended" in output


def test_a_rank_that_breaks_shows_its_end(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    pretend(monkeypatch, "if rank == 2: sys.exit('no such card')\ntime.sleep(60)")
    assert launching.launch(3, []) == 1
    output = capfd.readouterr().err
    assert "no such card" in output
    assert "rank 2 of 3 ended with exit code 1" in output


def test_signals_reach_every_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Each saves and ends by itself, and the launcher waits for that."""
    place = str(tmp_path)
    pretend(
        monkeypatch,
        f"def end(*told):\n    time.sleep(0.2); open(f'{place}/saved-{{rank}}', 'w').close(); sys.exit(0)\n"
        f"signal.signal(signal.SIGINT, end); open(f'{place}/ready-{{rank}}', 'w').close()\ntime.sleep(60)",
    )

    def interrupt() -> None:
        while len(list(tmp_path.glob("ready-*"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    assert launching.launch(2, []) == 0
    assert sorted(p.name for p in tmp_path.glob("saved-*")) == ["saved-0", "saved-1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["before 0", "after 0", "before 1", "after 1"])
def test_a_signal_while_processes_start_ends_all_of_them(
    number: signal.Signals, when: str, monkeypatch: pytest.MonkeyPatch
):
    """There is no moment of a launch at which one that is asked to end breaks off and leaves a process behind."""
    pretend(monkeypatch, "time.sleep(60)")
    start, started = launching._start, []

    def starting(rank: int, *rest: Any) -> Any:
        if when == f"before {rank}":
            os.kill(os.getpid(), number)
        started.append(start(rank, *rest))
        if when == f"after {rank}":
            os.kill(os.getpid(), number)
        return started[-1]

    monkeypatch.setattr(launching, "_start", starting)
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    assert launching.launch(2, []) == 128 + number
    assert len(started) == (1 if when.endswith("0") else 2)
    assert all(one.code == -number for one in started)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
