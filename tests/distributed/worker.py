"""What each process of the distributed tests runs: `worker.py FOLDER JOB …`, started by torchrun; or
`worker.py --forks N FOLDER JOB …`, which imports everything once and is then all of them.

A job is a name of `RUNS` (six steps, eight rows a step over all ranks, saved at step 3), or a function of `tests`'
modules `start`, `steps` and `unlike`. Results that a test compares are written by rank 0.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import sys
import traceback
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


def main(arguments: list[str]) -> None:
    dist.init_process_group("gloo")
    folder = Path(arguments[0])
    for job in arguments[1:]:
        run(folder, job)
        if not dist.is_initialized():  # a whole run leaves when it is done: it is the last job
            return
        dist.barrier()
        AcceleratorState._reset_state()
        GradientState._reset_state()
        PartialState._shared_state.clear()
    dist.destroy_process_group()


def forks(count: int, arguments: list[str]) -> None:
    """What torchrun sets, in so many forks; the first that fails ends all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child:
            children.append(child)
            continue
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        try:
            main(arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    for _ in children:
        if os.wait()[1]:
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            raise SystemExit(1)


if __name__ == "__main__":
    if sys.argv[1] == "--forks":
        forks(int(sys.argv[2]), sys.argv[3:])
    else:
        main(sys.argv[1:])
