"""What a finished run leaves: the model as a folder (the best weights, where evaluation named them), card and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vertebra import config as configs
from vertebra import log
from vertebra.action.record import POLICY
from vertebra.errors import CheckpointError, VertebraError
from vertebra.folders import write_whole
from vertebra.training import checkpoint
from vertebra.training.config import RunConfig
from vertebra.training.data import job_of
from vertebra.training.scale.shards import changing
from vertebra.training.watching.card import model_card
from vertebra.training.watching.metrics import METRICS, read
from vertebra.training.watching.samples import read_samples, write_samples
from vertebra.tune.adapter import write_adapter
from vertebra.tune.lora import Adapter


def write_output(model: Any, adapter: Adapter | None, config: RunConfig, trainer: Any, folder: Path) -> Path:
    """The model's folder and the report; returns the former."""
    place = best_place(trainer, folder)
    if place is not None:
        _take(model, checkpoint.read_weights(place))
    model.eval()
    return finish(model, adapter, config, folder, trainer.judge.best_step, answers(model, config))


def best_place(trainer: Any, folder: Path) -> Path | None:
    """The checkpoint of the best evaluation, where that is not the present step."""
    best = trainer.judge.best_step
    if best is None or best == trainer.state.global_step:
        return None
    place = folder / "checkpoints" / checkpoint.name_of(best)
    if not place.is_dir() or checkpoint.faults(place):
        return None
    log.info(f"the model is that of step {best}, the best evaluation")
    return place


def finish(
    model: Any, adapter: Adapter | None, config: RunConfig, folder: Path, best: int | None, after: list[dict[str, str]]
) -> Path:
    """Write a model that has its last weights, what it says, and the report."""
    name = "model" if adapter is None else "adapter"
    try:
        made = write_whole(
            folder / name, lambda part: write_model(model, adapter, config, folder, part, best), replace=True
        )
    except VertebraError:
        raise
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"`{folder / name}` cannot be written: {error}. The training is done and its checkpoint is whole; make room, "
            "then write the model with --resume"
        ) from error
    write_samples(folder, read_samples(folder) | {"after": after})
    if config.watch.report:
        _report(folder)
    return made


def write_model(
    model: Any, adapter: Adapter | None, config: RunConfig, run: Path, part: Path, best: int | None
) -> None:
    """The files of a model folder, or of an adapter's, with what is known of its training."""
    if adapter is not None:
        write_adapter(model, adapter, part)
    else:
        # a backbone's plain folder, which others load too, where there is nothing else to remember
        bare = not config.task.for_encoder and not model.parts and not model.heads
        alone = bare and not model.record
        (model.backbone if alone else model).write(part)
    _keep_golden(model, config, part)
    training = part / "training"
    training.mkdir()
    configs.write(config, training / "run.yaml")
    rows = read(run / METRICS)
    if (run / METRICS).is_file():
        (training / METRICS).write_bytes((run / METRICS).read_bytes())
    (part / "README.md").write_text(model_card(config, rows, best), encoding="utf-8")


def _keep_golden(model: Any, config: RunConfig, part: Path) -> None:
    """What a policy does about the task's example, beside its weights: whoever loads them sees whether it still does."""
    from vertebra.policies.golden import golden_pair
    from vertebra.policies.golden_files import write_golden
    from vertebra.policies.policy import Policy

    if config.task.for_encoder or POLICY not in model.record:
        return
    example = config.task.example(job_of(config, model))
    if example is None:
        return
    try:
        write_golden(golden_pair(Policy(model), *example), part)
    except VertebraError as error:  # a policy that says NaN is a model all the same
        log.warn(f"no golden pair was kept: {error}")


def answers(model: Any, config: RunConfig) -> list[dict[str, str]]:
    """What the report shows of the model: what it answers to the recipe's prompts, or what the task shows of its own."""
    return config.task.shown(model, job_of(config, model), config.watch.samples, config.watch.sample_tokens)


def _take(model: Any, weights: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in changing(model).items():
            tensor.copy_(weights[name])


def _report(folder: Path) -> None:
    """A picture that cannot be drawn is no reason to lose a run."""
    from vertebra.training.watching.report import write_report

    try:
        write_report(folder)
    except (VertebraError, OSError) as error:
        log.warn(f"the report was not written: {error}")
