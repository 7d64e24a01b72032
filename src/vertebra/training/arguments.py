"""The Trainer's own settings for a run. What is done here instead (logs, checkpoints, clipping) is switched off there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from vertebra.training.config import RunConfig


def training_arguments(config: RunConfig, folder: Path, steps: int, extra: dict[str, Any]) -> TrainingArguments:
    """The Trainer's arguments; `extra` goes before."""
    cpu = not torch.cuda.is_available()
    return TrainingArguments(
        **{
            "output_dir": str(folder),
            "max_steps": steps,
            "per_device_train_batch_size": config.optim.batch,
            "gradient_accumulation_steps": config.optim.accumulate,
            "learning_rate": config.optim.lr,
            "max_grad_norm": 0.0,
            "logging_strategy": "no",
            "save_strategy": "no",
            "eval_strategy": "no",
            "logging_nan_inf_filter": False,
            "ignore_data_skip": True,
            "disable_tqdm": True,
            "report_to": [],  # trackers are ours: theirs know the Trainer's settings, not the recipe
            "seed": config.seed,
            "use_cpu": cpu,
            "ddp_backend": "gloo" if cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None,
            "bf16": config.optim.precision == "bf16",
            "fp16": config.optim.precision == "fp16",
            "remove_unused_columns": False,
            "ddp_find_unused_parameters": False,
            **extra,
        }
    )
