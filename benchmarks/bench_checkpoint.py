"""What checkpoints cost a model of 100 M parameters: how long steps wait for one, and how long a resume takes to its
first step beside a start.

The goals: a step of five seconds waits for its checkpoint at most 20 % of that; a resume has done its first step after
at most 1.2 times what a start takes for its own, from the command on.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from vertebra import config as configs
from vertebra.config import build
from vertebra.training import checkpoint
from vertebra.training.config import RunConfig
from vertebra.training.run import PreparedRun
from vertebra.training.watching.metrics import METRICS, MetricsFile, read

STEP = 5.0  # seconds; the goal is said for steps that long
ROUNDS = 3


def recipe(folder: Path, **changes: Any) -> RunConfig:
    """100 M parameters drawn anew, a small corpus."""
    (folder / "words.txt").write_text("\n\n".join(f"The {n}th row speaks of row {n + 1}." for n in range(400)))
    tree = {
        "name": "hundred",
        "model": {
            "backbone": "tiny-gpt2",
            "scratch": True,
            "overrides": {"n_layer": 14, "n_embd": 768, "n_head": 12},
        },
        "data": {"kind": "text", "path": str(folder / "words.txt"), "block": 128, "held_out": 0.0},
        "optim": {"batch": 1, "warmup": 0},
        "watch": {"every": 1, "bar": False},
        "steps": 100,
        "out": str(folder / "run"),
    }
    return build(RunConfig, tree | changes)


def bench_stall() -> None:
    """How long `save_now` holds a step up, and what the write behind it costs the processor."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = PreparedRun.of(recipe(folder, steps=2, save={"keep": 1}))
        size = sum(p.numel() for p in made.model.parameters()) / 1e6
        (folder / "run").mkdir()
        trainer = made.trainer(folder / "run")
        trainer.train()
        trainer.writer.wait()
        waits, behind, clock = [], [], []
        for _ in range(2 * ROUNDS):
            start = time.perf_counter()
            trainer.save_now()
            waits.append(time.perf_counter() - start)
            start, cpu = time.perf_counter(), time.process_time()
            trainer.writer.wait()
            behind.append(time.process_time() - cpu)
            clock.append(time.perf_counter() - start)
    wait = statistics.median(waits)
    verdict = "met" if wait <= 0.2 * STEP else "MISSED"
    print(f"checkpoint of {size:.0f} M parameters and their AdamW state ({size * 12 / 1e3:.2f} GB)")
    print(
        f"  the step waits {wait:.2f} s (longest {max(waits):.2f}): {wait / STEP:.0%} of {STEP:.0f} s (goal 20 %: {verdict})"
    )
    print(
        f"  then it is written in {statistics.median(clock):.2f} s, for {statistics.median(behind):.2f} s of a processor "
        "(hashing and writing, without the interpreter's lock, behind the training)"
    )


def until_row(folder: Path, rows: int, *arguments: str, keep: Path | None = None) -> tuple[float, float]:
    """Seconds and processor seconds from the command until `metrics.jsonl` has so many rows; the run is then killed,
    once `keep` is there."""
    metrics = folder / "run" / METRICS
    start = time.perf_counter()
    command = [sys.executable, "-c", "from vertebra.cli.main import run; run()", "train", str(folder / "recipe.yaml")]
    nothing = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    child = os.posix_spawn(command[0], [*command, *arguments], os.environ, file_actions=nothing)
    while not (metrics.is_file() and len(read(metrics)) >= rows):
        if os.waitpid(child, os.WNOHANG)[0]:
            raise SystemExit("the run ended before its row")
        time.sleep(0.005)
    taken = time.perf_counter() - start
    used = sum(float(part) for part in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13])
    while keep is not None and not keep.is_dir():
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return taken, used / os.sysconf("SC_CLK_TCK")


def bench_resume() -> None:
    """From the command to the first row of metrics: started, and resumed from step 1."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        configs.write(recipe(folder, save={"every": 1, "keep": 9}), folder / "recipe.yaml")
        first = folder / "run" / "checkpoints" / checkpoint.name_of(1)
        taken: dict[str, list[tuple[float, float]]] = {"start": [], "resume": []}
        for number in range(ROUNDS + 1):
            shutil.rmtree(folder / "run", ignore_errors=True)
            started = until_row(folder, 1, keep=first)
            MetricsFile(folder / "run").cut_back(1)
            for later in checkpoint.checkpoints(first.parent)[1:]:
                shutil.rmtree(later)
            resumed = until_row(folder, 2, "--resume")
            if number:  # the first round fills caches
                taken["start"].append(started)
                taken["resume"].append(resumed)
    for name, index in (("on the clock", 0), ("of the processor", 1)):
        start, resume = (statistics.median(times[index] for times in both) for both in taken.values())
        ratio = statistics.median(b[index] / a[index] for a, b in zip(*taken.values(), strict=True))
        verdict = "met" if ratio <= 1.2 else "MISSED"
        print(
            f"resume to its first step {resume:.2f} s {name}, start {start:.2f} s: {ratio:.2f} × (goal 1.2: {verdict})"
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    torch.set_num_threads(1)
    bench_stall()
    bench_resume()
