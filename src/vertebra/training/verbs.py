"""`train` and `plan`: a recipe, by its name, its file or as a config, to a run or to what a run would need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vertebra import config as configs
from vertebra.training.config import RunConfig
from vertebra.training.planning import plan as planning
from vertebra.training.planning.plan import Plan
from vertebra.training.recipes import read_recipe
from vertebra.training.run import RunOutcome
from vertebra.training.run import train as run
from vertebra.training.tiny import tiny_config


def train(
    recipe: str | Path | RunConfig,
    overrides: Iterable[str] = (),
    *,
    out: str | Path | None = None,
    tiny: bool = False,
    **options: Any,
) -> RunOutcome:
    """Train by a recipe: its name, its file, or its config; where the model lies is `.model` of what comes back.

    `overrides`: `["optim.lr=1e-4"]`. `out`: the folder of the run. `tiny`: the whole of it on a tiny backbone, in
    seconds. `options`: `resume=True` goes on from the newest good checkpoint, `overwrite=True` begins anew,
    `dry_run=True` does everything once, `loss=` a function in place of the loss.
    """
    config = config_of(recipe, overrides)
    folder = None if out is None else Path(out)
    config = tiny_config(config, folder) if tiny else replace(config, out=str(folder)) if folder else config
    return run(config, **options)


def plan(recipe: str | Path | RunConfig, overrides: Iterable[str] = (), **options: Any) -> Plan:
    """What a run needs, on paper: memory by layout, and with `tokens` and `price` its time and cost.

    `options`: `gpus`, `memory` in GB a GPU, `mfu`, `flops` of one GPU, `tokens`, `price` of a GPU hour, `images` a row.
    """
    return planning.plan(config_of(recipe, overrides), **options)


def config_of(recipe: str | Path | RunConfig, overrides: Iterable[str] = ()) -> RunConfig:
    """The config of a recipe, overrides applied."""
    if not isinstance(recipe, RunConfig):
        return read_recipe(recipe, overrides)
    overrides = list(overrides)
    return configs.resolve(RunConfig, configs.plain(recipe), overrides, where="the config") if overrides else recipe
