"""What checkpoints cost a model of 100 M parameters: how long steps wait for one, and how long a resume takes to its
first step beside a start.

The goals: a checkpoint takes at most 20 % of a step of five seconds, the slower steps beside its background write
included; a resume is at its first step after at most 1.2 times what a start takes, from the command to the row.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vertebra.config import build
from vertebra.train import checkpoint
from vertebra.train.config import RunConfig
from vertebra.train.run import Prepared
from vertebra.train.trainer import ExactTrainer

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


class Timed(ExactTrainer):
    """Notes how long each step and each checkpoint took."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.begun = time.perf_counter()
        self.steps: list[float] = []
        self.waits: dict[int, float] = {}

    def save_now(self) -> Path | None:
        start = time.perf_counter()
        made = super().save_now()
        self.waits[len(self.steps) + 1] = time.perf_counter() - start
        return made

    def after_step(self) -> None:
        super().after_step()
        now = time.perf_counter()
        self.steps.append(now - self.begun)
        self.begun = now


def bench_stall() -> None:
    """Steps with a checkpoint after every fifth, against those of the same run that none touches."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = recipe(folder, steps=17, save={"every": 5, "keep": 1})
        optim = replace(run.optim, batch=2, accumulate=4)
        run = replace(run, optim=optim)
        made = Prepared.of(run)
        size = sum(p.numel() for p in made.model.parameters()) / 1e6
        import vertebra.train.trainer as trainers

        trainers.ExactTrainer = Timed  # type: ignore[misc]
        (folder / "run").mkdir()
        trainer = made.trainer(folder / "run")
        trainer.train()
        trainer.writer.wait()
    number = {i + 1: s for i, s in enumerate(trainer.steps)}
    # the last checkpoint ends the run; nothing follows it
    saved = [step for step in trainer.waits if step + 4 < len(number)]
    still = statistics.median(number[step + after] for step in saved for after in (3, 4))
    waited = [trainer.waits[step] for step in saved]
    slower = [sum(number[step + after] - still for after in (1, 2)) for step in saved]
    whole = statistics.median(max(0.0, a) + b for a, b in zip(slower, waited, strict=True))
    print(f"checkpoint of {size:.0f} M parameters and their AdamW state ({size * 12 / 1e3:.2f} GB)")
    print(f"  the first waits {waited[0]:.2f} s (new memory), later ones {statistics.median(waited[1:]):.2f} s")
    print(f"  steps of {still:.2f} s are together {statistics.median(slower):+.2f} s longer while it is written")
    verdict = "met" if whole <= 0.2 * STEP else "MISSED"
    print(f"  {whole:.2f} s of a step of {STEP:.0f} s: {whole / STEP:.0%} (goal 20 %: {verdict})")


def until_row(folder: Path, rows: int, *arguments: str) -> float:
    """Seconds from the command until `metrics.jsonl` has so many rows; the run is then killed."""
    metrics = folder / "run" / "metrics.jsonl"
    start = time.perf_counter()
    command = [sys.executable, "-c", "from vertebra.cli.main import run; run()", "train", str(folder / "recipe.yaml")]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            if metrics.is_file() and metrics.read_text().count('"loss"') >= rows:
                return time.perf_counter() - start
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    raise SystemExit(f"the run ended with {process.returncode}")


def bench_resume() -> None:
    """From the command to the first row of metrics: started, and resumed from step 1."""
    import shutil

    from vertebra import config as configs

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        configs.write(recipe(folder, save={"every": 1, "keep": 1}), folder / "recipe.yaml")
        taken: dict[str, list[float]] = {"start": [], "resume": []}
        for number in range(ROUNDS + 1):
            started = until_row(folder, 1, "--overwrite")
            # the same folder again, its first checkpoint whole
            subprocess.run(
                [sys.executable, "-c", "from vertebra.cli.main import run; run()", "train",
                 str(folder / "recipe.yaml"), "--overwrite", "--set", "steps=1"],
                check=True, capture_output=True,
            )  # fmt: skip
            assert checkpoint.newest_good(folder / "run" / "checkpoints"), "a checkpoint of step 1"
            resumed = until_row(folder, 2, "--resume")
            shutil.rmtree(folder / "run")
            if number:  # the first round fills caches
                taken["start"].append(started)
                taken["resume"].append(resumed)
    start, resume = (statistics.median(times) for times in taken.values())
    ratio = statistics.median(b / a for a, b in zip(*taken.values(), strict=True))
    verdict = "met" if ratio <= 1.2 else "MISSED"
    print(f"resume to its first step {resume:.2f} s, start {start:.2f} s: {ratio:.2f} × (goal 1.2: {verdict})")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # here the write in the background has a core to itself, as it has where a GPU trains
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    bench_stall()
    bench_resume()
