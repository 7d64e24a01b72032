"""A whole run in shards, as `vertebra train` does it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vertebra.training.recipes import read_recipe
from vertebra.training.run import train
from vertebra.training.tiny import tiny_config

RECIPE = Path(__file__).parents[2] / "recipes" / "chat-full.yaml"
# the best evaluation is not the last: the learning rate is far too high
SETTINGS = ("optim.schedule=constant", "optim.warmup=0", "watch.bar=false", "save.keep=9")


def tiny(folder: Path, *, batch: int = 2) -> Any:
    made = tiny_config(read_recipe(RECIPE, list(SETTINGS)), folder)
    return replace(made, optim=replace(made.optim, batch=batch))


def in_shards(folder: Path) -> None:
    made = tiny(folder / "whole-torchrun")
    train(replace(made, parallel=replace(made.parallel, kind="fsdp")))
