"""What each process of the distributed tests runs: `worker.py FOLDER JOB …`, started by torchrun.

A job is a name of `RUNS` (six steps, eight rows a step over all ranks, saved at step 3), or a function of `tests`'
modules `start`, `steps` and `unlike`. Results that a test compares are written by rank 0.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist
from accelerate.state import AcceleratorState, GradientState, PartialState

from tests.training.models import Words, config, trainer
from vertebra.training import checkpoint

SETTINGS: dict[str, Any] = {
    "steps": 6,
    "save__every": 3,
    "save__keep": 9,
    "watch__every": 1,
    "optim__schedule": "constant",
}
LORA = {"tune__stage": "lora", "tune__lora": {"r": 2}}
TIED = {"model__backbone": "tiny-smollm2"}
RUNS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {"parallel__kind": "fsdp"},
    "ddp-recompute": {"optim__checkpointing": True, "steps": 3},
    "fsdp-recompute": {"parallel__kind": "fsdp", "optim__checkpointing": True, "steps": 3},
    "ddp-lora": {**LORA, "steps": 4},
    "fsdp-lora": {"parallel__kind": "fsdp", **LORA},
    "fsdp-tied": {"parallel__kind": "fsdp", **TIED, "steps": 3},
    "hybrid": {"parallel__kind": "fsdp", "parallel__hybrid": 2},
}


def settings_of(name: str, world: int) -> Any:
    """The run of a job; with one process, the same run on it alone."""
    changes = {**SETTINGS, "optim__batch": 8 // world, **RUNS[name]}
    if world == 1:
        changes = {key: value for key, value in changes.items() if not key.startswith("parallel")}
    return config(**changes)


def train(folder: Path, name: str, resume: Path | None) -> None:
    run = settings_of(name, dist.get_world_size())
    made = trainer(folder, run, samples=Words(40))
    if run.optim.checkpointing:
        model = made.learner.model
        model.enable_gradient_checkpointing()
        assert all(layer.gradient_checkpointing for layer in model.backbone.layers)
    made.train(resume_from_checkpoint=str(resume) if resume else None)
    made.writer.wait()


def run(folder: Path, job: str) -> None:
    """`fsdp`: that run. `fsdp<ddp`: that run, resumed at step 3 of the other one's checkpoints, into `fsdp-from-ddp`.
    `start:memory`: a function of a module."""
    if ":" in job:
        module, _, name = job.partition(":")
        getattr(importlib.import_module(f"tests.distributed.{module}"), name)(folder)
        return
    name, _, source = job.partition("<")
    place = folder / source / "checkpoints" / checkpoint.name_of(3)
    train(folder / (f"{name}-from-{source}" if source else name), name, place if source else None)


def main() -> None:
    folder = Path(sys.argv[1])
    for job in sys.argv[2:]:
        run(folder, job)
        if not dist.is_initialized():  # a whole run leaves when it is done: it is the last job
            return
        dist.barrier()
        AcceleratorState._reset_state()
        GradientState._reset_state()
        PartialState._shared_state.clear()
    dist.destroy_process_group()


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main()
