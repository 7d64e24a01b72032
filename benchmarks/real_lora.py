"""LoRA steps on a real model: ours, packed to rows of 512 tokens, beside a plain `Trainer` with PEFT, padded.

The same samples on both sides (lengths log-normal, median 120, at most 512), rank 16 on every linear, float32, AdamW, no
checkpointing. Useful tokens are those of samples; padding is none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vertebra.config import build
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import Packed
from vertebra.data.samples.table import ChunkBuilder, Table
from vertebra.model.model import Model
from vertebra.training.config import RunConfig
from vertebra.training.feed import Feed
from vertebra.training.learner import Learner
from vertebra.training.trainer import ExactTrainer
from vertebra.tune import LoraConfig, TuneConfig, choose

LONGEST, SAMPLES, PADDED_ROWS, RANK = 512, 60, 4, 16
Rate = Callable[[], float]
"""Trains a few steps; useful tokens a second of the processor, the first step left out."""


def samples() -> list[list[int]]:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(120), 0.8, SAMPLES).astype(int), 8, LONGEST)
    return [rng.integers(20, 40_000, length).tolist() for length in lengths]


def ours(backbone: Any, folder: Path, steps: int) -> Rate:
    choose(backbone, TuneConfig(stage="lora", lora=LoraConfig(r=RANK, alpha=RANK)))
    table = ChunkBuilder(("ids",))
    for ids in samples():
        table.place("made", 1)
        table.vectors({"ids": np.array(ids, np.int32)})
    rows = Table([table.built()], meta={"fingerprint": "made"})
    tree = {
        "name": "bench",
        "model": {"backbone": "smollm2-135m-instruct"},
        "data": {"kind": "text", "path": "none"},
        "optim": {"batch": 1, "lr": 1e-4},
        "watch": {"every": steps},
        "steps": steps,
    }
    config = build(RunConfig, tree)
    learner = Learner(Model(backbone))

    def run() -> float:
        feed = Feed(Loader(rows, Packed(1, LONGEST), Collator(0), pin_memory=False), steps=steps, accumulate=1)
        trainer = ExactTrainer(learner, config, feed, folder)
        trainer.save_now = lambda: None  # type: ignore[method-assign]
        return _rate(trainer)

    return run


def trainer_and_peft(source: Path, folder: Path, steps: int) -> Rate:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainingArguments

    stock = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model = get_peft_model(stock, LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear"))
    settings = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=PADDED_ROWS, learning_rate=1e-4,
        logging_steps=steps, save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    held = [{"input_ids": ids, "labels": ids} for ids in samples()]

    def run() -> float:
        trainer = Trainer(model=model, args=settings, train_dataset=held, data_collator=_padded)
        trainer.remove_callback(PrinterCallback)
        return _rate(trainer)

    return run


def _padded(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)

    def filled(name: str, value: int) -> torch.Tensor:
        return torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])

    ids = filled("input_ids", 0)
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": filled("labels", -100)}


def _rate(trainer: Any) -> float:
    """Train, with a look at the clock at each step's beginning."""
    starts: list[float] = []
    tokens: list[int] = []
    before = trainer.training_step

    def step(model: Any, inputs: Any, *others: Any, **options: Any) -> Any:
        starts.append(time.process_time())
        tokens.append(int(inputs["attention_mask"].sum()))
        return before(model, inputs, *others, **options)

    trainer.training_step = step
    trainer.train()
    return sum(tokens[1:-1]) / (starts[-1] - starts[1])
