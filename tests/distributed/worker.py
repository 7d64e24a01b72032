"""What each process of the distributed tests runs: `worker.py FOLDER JOB …`, started by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist
from accelerate.state import AcceleratorState, GradientState, PartialState

from tests.train.models import Words, config, trainer
from vertebra.train import checkpoint


def run(folder: Path, job: str) -> None:
    """`ddp`, `fsdp` or `resume-fsdp`: a run of six steps, eight rows a step over all ranks."""
    world = dist.get_world_size()
    kind = "ddp" if job == "ddp" else "fsdp"
    made = trainer(
        folder / job.removeprefix("resume-"),
        config(parallel__kind=kind, optim__batch=8 // world, steps=6, save__every=3, save__keep=9, watch__every=1),
        samples=Words(40),
    )
    found = folder / "fsdp" / "checkpoints" / checkpoint.name_of(3)
    made.train(resume_from_checkpoint=str(found) if job == "resume-fsdp" else None)
    made.writer.wait()


def main() -> None:
    folder = Path(sys.argv[1])
    for job in sys.argv[2:]:
        run(folder, job)
        dist.barrier()
        AcceleratorState._reset_state()
        GradientState._reset_state()
        PartialState._shared_state.clear()
    dist.destroy_process_group()


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main()
