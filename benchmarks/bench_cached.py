"""What `cache.tower` and `cache.layers` save of a training step: the same run with and without, steps in turn.

    python benchmarks/bench_cached.py          needs `vertebra get smollm2-135m-instruct dinov2-small`; two minutes

One thread, process time, medians. The language model's own part of a step is what a cached tower leaves, and the layers that
train are what cached lower layers leave: the ratio says how large those parts are.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from vertebra.backbone.real import REAL
from vertebra.training.recipes import read_recipe
from vertebra.training.run import PreparedRun

STEPS = 4
LAST = tuple(range(26, 30))
COMMON = ("optim.precision=fp32", "steps=100", "data.held_out=0", "watch.bar=false")
LOOK = ("data.count=96", "optim.batch=1")
CASES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "tower, 112 pixels, stage words": ("look-words", LOOK, "cache.tower"),
    "tower, 112 pixels, stage align": ("look-words", (*LOOK, "tune.stage=align"), "cache.tower"),
    "tower, 224 pixels, stage align": (
        "look-words",
        (*LOOK, "tune.stage=align", "model.image.image_size=224", "model.image.pool=4"),
        "cache.tower",
    ),
    "LoRA on the last 4 of 30 layers": (
        "smollm2-lora",
        ("data.count=60", f"tune.lora.layers={list(LAST)}"),
        "cache.layers",
    ),
}


def stepping(recipe: str, settings: tuple[str, ...], folder: Path) -> Any:
    """A function that makes one step, forward and backward, on the next batch."""
    made = PreparedRun.of(read_recipe(recipe, [*COMMON, *settings]))
    learner = made.trainer(folder).learner.train()
    batches = iter(made.feed)

    def step() -> float:
        batch = next(batches)
        start = time.process_time()
        learner(**batch)["loss"].backward()
        return time.process_time() - start

    return step


def main() -> None:
    torch.set_num_threads(1)
    missing = [name for name in ("smollm2-135m-instruct", "dinov2-small") if not REAL[name].folder.is_dir()]
    if missing:
        print(f"skipped: {', '.join(missing)} not fetched yet (vertebra get {' '.join(missing)})")
        return
    print(f"{'what':36} {'every step':>12} {'cached':>10} {'ratio':>8}")
    for what, (recipe, settings, cache) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            sides = [
                stepping(recipe, (*settings, f"{cache}={value}"), Path(folder) / value) for value in ("false", "true")
            ]
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(STEPS):
                for side, taken in zip(sides, times, strict=True):
                    taken.append(side())
        every, kept = (statistics.median(taken[1:]) for taken in times)
        print(f"{what:36} {every:10.2f} s {kept:8.2f} s {every / kept:7.2f}x")


if __name__ == "__main__":
    main()
