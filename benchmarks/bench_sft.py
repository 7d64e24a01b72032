"""Useful tokens a second of whole training steps, beside TRL's `SFTTrainer` (measured where installed: no dependency).

Instructions of log-normal lengths (median 120, σ 0.8, at most 1024), every token supervised, one model of 21 M
parameters, AdamW and clipping on all sides. One thread, process CPU time, the first step of each run left out.

    TRL, padded   its default: 8 random samples a step, padded to the longest
    TRL, packed   packing=True, 2 rows of 1024 a step (best-fit, which it keeps apart under flash attention alone)
    ours          `sampler: packed`, the recipes' own: 2 rows of 1024 a step, samples kept apart

    python benchmarks/bench_sft.py [--rounds N]
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch

from vertebra.backbone.registry import load_backbone
from vertebra.config import build
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import LengthGrouped, Packed, Sampler
from vertebra.data.samples.table import ChunkBuilder, Table
from vertebra.model.model import Model
from vertebra.training.building import fresh_weights
from vertebra.training.config import RunConfig
from vertebra.training.feed import Feed
from vertebra.training.learner import Learner
from vertebra.training.trainer import ExactTrainer

LONGEST, SAMPLES = 1024, 400
SHAPE = {"vocab_size": 8000, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4,
         "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": LONGEST}  # fmt: skip

Run = Callable[[], float]
"""Trains a few steps; useful tokens a CPU second."""


def lengths() -> np.ndarray:
    drawn = np.random.default_rng(0).lognormal(np.log(120), 0.8, SAMPLES)
    return np.clip(drawn.astype(int), 2, LONGEST)


def samples() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(5, 8000, length).astype(np.int32) for length in lengths()]


def model() -> Model:
    backbone = load_backbone("tiny-llama2", inference_mode=True, dtype="float32", config_overrides=SHAPE)
    return Model(fresh_weights(backbone)[0])


class Clock:
    """Tokens and CPU seconds of every step but the first."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.tokens: list[int] = []

    def step(self, tokens: int) -> None:
        self.starts.append(time.process_time())
        self.tokens.append(tokens)

    @property
    def rate(self) -> float:
        return sum(self.tokens[1:-1]) / (self.starts[-1] - self.starts[1])


def timed(trainer: Any) -> float:
    """Train, with a look at the clock at each step's beginning."""
    clock, before = Clock(), trainer.training_step

    def step(model: Any, inputs: Any, *others: Any, **options: Any) -> Any:
        mask = inputs.get("attention_mask")
        ids = inputs["input_ids"]
        # without padding TRL hands out no mask; what it filled up with carries no label
        tokens = int(mask.sum()) if mask is not None else ids.numel()
        clock.step(tokens)
        return before(model, inputs, *others, **options)

    trainer.training_step = step
    trainer.train()
    return clock.rate


def ours(made: Model, folder: Path, sampler: Sampler, steps: int) -> Run:
    table = ChunkBuilder(("ids",))
    for ids in samples():
        table.place("made", 1)
        table.vectors({"ids": ids})
    rows = Table([table.built()], meta={"fingerprint": "made"})
    tree = {
        "name": "bench",
        "model": {"backbone": "tiny-llama2"},
        "data": {"kind": "text", "path": "none"},
        "optim": {"batch": sampler.batch_size, "lr": 1e-4},
        "watch": {"every": steps},
        "steps": steps,
    }
    config = build(RunConfig, tree)

    def run() -> float:
        feed = Feed(Loader(rows, sampler, Collator(0), pin_memory=False), steps=steps, accumulate=1)
        trainer = ExactTrainer(Learner(made), config, feed, folder)
        trainer.save_now = lambda: None  # type: ignore[method-assign]
        return timed(trainer)

    return run


def trl(made: Model, folder: Path, *, packed: bool, steps: int) -> Run:
    from datasets import Dataset, disable_progress_bars
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    held = Dataset.from_dict({"input_ids": [ids.tolist() for ids in samples()]})

    def run() -> float:
        settings = SFTConfig(
            output_dir=str(folder), max_steps=steps, per_device_train_batch_size=2 if packed else 8, learning_rate=1e-4,
            max_length=LONGEST, packing=packed, report_to=[], disable_tqdm=True, use_cpu=True, bf16=False,
            save_strategy="no", logging_steps=steps, gradient_checkpointing=False,
        )  # fmt: skip
        trainer = SFTTrainer(made.backbone.llm, settings, train_dataset=held, processing_class=made.backbone.tokenizer)
        trainer.remove_callback(PrinterCallback)
        return timed(trainer)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    made = model()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packed = ours(made, folder, Packed(2, LONGEST), 6)
        sides = {
            "ours, packed": packed,
            "A/A": packed,
            "ours, length-grouped": ours(made, folder, LengthGrouped(8), 10),
        }
        try:
            sides["TRL, padded (its default)"] = trl(made, folder, packed=False, steps=10)
            sides["TRL, packed"] = trl(made, folder, packed=True, steps=6)
        except ImportError as error:
            print(f"TRL is not installed, so only our own sides run ({error})")
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(rounds):
            for side in list(sides)[turn % len(sides) :] + list(sides)[: turn % len(sides)]:
                rates[side].append(sides[side]())
    report(rates, sum(p.numel() for p in made.parameters()) / 1e6)


def report(rates: dict[str, list[float]], size: float) -> None:
    goals = {"TRL, padded (its default)": 1.5, "TRL, packed": 1.0}
    median = {side: statistics.median(values) for side, values in rates.items()}
    print(f"training {size:.0f} M parameters, useful tokens a CPU second; ×: ours, packed, over it")
    for side, rate in median.items():
        ratio = median["ours, packed"] / rate
        goal = goals.get(side)
        said = "" if goal is None else f"   goal {goal} ×: {'met' if ratio >= goal else 'not met'}"
        print(f"  {side:28s} {rate:8.0f}   {ratio:4.2f} ×{said}")


if __name__ == "__main__":
    main()
