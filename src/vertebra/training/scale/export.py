"""A model out of a checkpoint: the run's model as its recipe names it, with the weights of one step put in.

By one process, in little memory: what the checkpoint holds is mapped and not read, be it whole or in shards, and what
it does not hold comes from the pretrained files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vertebra.backbone.weights import mapped_tensors
from vertebra.errors import CheckpointError
from vertebra.folders import require_free, write_whole
from vertebra.training import checkpoint
from vertebra.training.building import build_late
from vertebra.training.config import RunConfig
from vertebra.training.output import write_model
from vertebra.training.recipes import read_run
from vertebra.training.scale.shards import SHARDS, changing, consolidate
from vertebra.training.scale.start import Late
from vertebra.tune.lora import Adapter
from vertebra.tune.stages import choose


def export(run: str | Path, out: str | Path, *, step: int | None = None, overwrite: bool = False) -> Path:
    """Write the model (or adapter) of a run at a step, by default that of its newest good checkpoint."""
    run, out = Path(run), Path(out)
    config = read_run(run)
    place = _place(run / "checkpoints", step)
    require_free(out, overwrite=overwrite, reads=[place])
    with model_at(config, place) as (model, adapter):

        def fill(part: Path) -> None:
            write_model(model, adapter, config, run, part, checkpoint.step_of(place))

        return write_whole(out, fill, replace=True)


@contextmanager
def model_at(config: RunConfig, place: Path) -> Iterator[tuple[Any, Adapter | None]]:
    """The model of a run with a checkpoint's weights, while the block lasts: they are mapped from files."""
    # the name is one that a later run sweeps away, should this process be killed
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".checkpoint-whole-") as part:
        model: Any
        model, late = build_late(config)
        adapter = choose(model, config.tune, seed=config.seed)
        sharded = (place / SHARDS).is_dir()
        tensors = mapped_tensors(consolidate(place, part)) if sharded else checkpoint.read_weights(place)
        put(model, tensors, place, late or Late())
        yield model.eval(), adapter


def put(model: Any, tensors: Mapping[str, torch.Tensor], place: Path, late: Late) -> None:
    """Put a checkpoint's tensors into a model, and make the rest of it real."""
    named = changing(model)
    wrong = sorted(set(named) ^ set(tensors)) or [n for n, t in named.items() if t.shape != tensors[n].shape]
    if wrong:
        raise CheckpointError(f"`{place}` does not fit the model of its recipe: {', '.join(wrong[:4])}")
    for name, tensor in named.items():
        if isinstance(tensor, torch.nn.Parameter):
            late.put(tensor, partial(_given, tensors[name]))
        else:
            tensor.copy_(tensors[name])
    late.ready(model)


def _given(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _place(folder: Path, step: int | None) -> Path:
    if step is None:
        found = checkpoint.newest_good(folder)
        if found is None:
            raise CheckpointError(f"`{folder}` holds no good checkpoint")
        return found
    place = folder / checkpoint.name_of(step)
    if not place.is_dir():
        have = ", ".join(str(checkpoint.step_of(p)) for p in checkpoint.checkpoints(folder)) or "none"
        raise CheckpointError(f"`{folder}` has no checkpoint of step {step}. Steps: {have}")
    wrong = checkpoint.faults(place)
    if wrong:
        raise CheckpointError(f"`{place}` is damaged: {'; '.join(wrong)}")
    return place
