"""Experiment trackers by one word: Weights & Biases, TensorBoard, trackio. Each gets the resolved config and every row.

The id of a run is kept in its folder, so that a resumed run goes on in the same curve. Projects, entities and offline
mode come from the trackers' own environment variables (`WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_MODE`, `TRACKIO_PROJECT`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from vertebra import config as configs
from vertebra import log
from vertebra.errors import ConfigError, MissingPartError
from vertebra.folders import write_file
from vertebra.training.config import RunConfig

PROJECT = "vertebra"
KEPT = "tracker.json"


class Tracker(Protocol):
    """Who is given each row."""

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


def require_tracker(config: RunConfig) -> None:
    """Refuse a tracker that is not installed, before anything loads."""
    tool = config.watch.report_to
    if tool != "none" and importlib.util.find_spec(tool) is None:
        raise MissingPartError(f"watch.report_to={tool}", tool)


def open_tracker(config: RunConfig, folder: Path, *, step: int) -> Tracker | None:
    """The tracker that the config names, going on at a step; None where none is named."""
    tool = config.watch.report_to
    if tool == "none":
        return None
    require_tracker(config)
    return _TOOLS[tool](config, folder, step)


def run_id(folder: Path, given: str | None = None) -> str:
    """The id that a run's folder keeps, made at its first use."""
    kept = folder / KEPT
    if kept.is_file():
        try:
            return str(json.loads(kept.read_text(encoding="utf-8"))["id"])
        except (ValueError, KeyError, TypeError) as error:
            log.warn(f"`{kept}` is damaged; the run begins a new curve ({error})")
    made = given or uuid.uuid4().hex[:12]
    write_file(kept, json.dumps({"id": made}))
    return made


class _Wandb:
    def __init__(self, config: RunConfig, folder: Path, step: int) -> None:
        import wandb

        try:
            self._run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                entity=os.environ.get("WANDB_ENTITY") or None,
                name=os.environ.get("WANDB_NAME") or config.name,
                id=run_id(folder, os.environ.get("WANDB_RUN_ID")),
                resume="allow",
                dir=os.environ.get("WANDB_DIR") or str(folder),
                config=configs.plain(config),
            )
        except wandb.errors.Error as error:
            raise ConfigError(
                f"Weights & Biases does not answer: {error}. Log in with `wandb login`, or work offline with "
                "WANDB_MODE=offline and send the run later with `wandb sync`"
            ) from error
        self._run.define_metric("*", step_metric="step")

    def log(self, values: Mapping[str, float], step: int) -> None:
        # the step is a value: its own counter refuses the steps that a resumed run repeats
        self._run.log({**values, "step": step})

    def close(self) -> None:
        self._run.finish()


class _TensorBoard:
    def __init__(self, config: RunConfig, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = folder / "tensorboard"
        # what a killed run reported after the checkpoint is taken back
        self._writer: Any = SummaryWriter(str(place), purge_step=step + 1 if step else None)
        self._writer.add_text("config", f"```\n{json.dumps(configs.plain(config), indent=1)}\n```")
        log.info(f"curves: tensorboard --logdir {place}")

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    def __init__(self, config: RunConfig, folder: Path, step: int) -> None:
        import trackio

        self._trackio = trackio
        # it goes on by name, so that the name must be this run's alone
        self._run: Any = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT") or PROJECT,
            name=f"{config.name}-{run_id(folder)}",
            resume="allow",
            config=configs.plain(config),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        self._trackio.finish()


_TOOLS: dict[str, Callable[[RunConfig, Path, int], Tracker]] = {
    "wandb": _Wandb,
    "tensorboard": _TensorBoard,
    "trackio": _Trackio,
}
