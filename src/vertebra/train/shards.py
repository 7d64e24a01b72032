"""What several processes share: sums, votes, and checkpoints of weights that are whole on every rank or sharded.

Whole (one process, DDP): rank 0 writes one file; every rank's generators go with it. Sharded (FSDP2): torch's
distributed checkpoint, which loads on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from vertebra.errors import CheckpointError
from vertebra.train import checkpoint


class Shards:
    """The processes of one run."""

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator
        self.world = int(accelerator.num_processes)
        self.rank = int(accelerator.process_index)
        self.sharded = str(getattr(accelerator.distributed_type, "value", "")).upper() == "FSDP"

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks."""
        if self.world == 1:
            return values
        moved = values.to(self.accelerator.device)
        dist.all_reduce(moved)
        return moved.to(values.device)

    def agreed(self, asked: bool) -> bool:
        """Whether any rank asks: signals reach ranks at different steps, and all must stop at the same."""
        return asked if self.world == 1 else bool(self.summed(torch.tensor(float(asked))) > 0)

    def number(self, value: Any) -> float:
        """A norm as a number; of a sharded one the whole."""
        return float(value.full_tensor() if hasattr(value, "full_tensor") else value)

    def gathered(self, value: Any) -> list[Any]:
        """Every rank's value, in order of ranks."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    # --- checkpoints

    def save(self, trainer: Any, state: Mapping[str, Any], trainer_state: str) -> Path | None:
        """One checkpoint of this step, by all ranks together."""
        generators = trainer.generators()
        scaler = trainer.accelerator.scaler
        payload = {
            "schedule": trainer.lr_scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "generators": generators,
        }
        if self.rank != 0:
            return None
        learner = trainer.accelerator.unwrap_model(trainer.model)
        payload["optimizer"] = checkpoint.on_cpu(plain_optimizer(trainer).state_dict())
        snapshot = checkpoint.Snapshot(
            step=int(state["step"]),
            weights={name: checkpoint.on_cpu(tensor) for name, tensor in changing(learner.model).items()},
            payload=payload,
            state=state,
            trainer_state=trainer_state,
        )
        trainer.writer.save(snapshot, best=trainer.judge.best_step)
        return trainer.writer.folder / checkpoint.name_of(snapshot.step)

    def load_weights(self, trainer: Any, folder: Path) -> None:
        """Put a checkpoint's weights into the model."""
        named = changing(trainer.accelerator.unwrap_model(trainer.model).model)
        saved = checkpoint.read_weights(folder)
        wrong = sorted(set(saved) ^ set(named)) or [n for n, t in named.items() if t.shape != saved[n].shape]
        if wrong:
            raise CheckpointError(
                f"`{folder}` is the checkpoint of another model, or of another choice of what trains: {', '.join(wrong[:4])}"
            )
        with torch.no_grad():
            for name, tensor in named.items():
                tensor.copy_(saved[name])

    def load_optimizer(self, trainer: Any, folder: Path) -> dict[str, Any]:
        """Put the optimizer's state in, and return the rest of the payload."""
        payload = checkpoint.read_payload(folder)
        plain_optimizer(trainer).load_state_dict(payload.pop("optimizer"))
        return payload


def plain_optimizer(trainer: Any) -> Any:
    """The torch optimizer inside accelerate's."""
    return getattr(trainer.optimizer, "optimizer", trainer.optimizer)


def changing(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a checkpoint must hold: what trains, buffers that are saved, and parts that no pretrained file brings."""
    saved = model.state_dict(keep_vars=True)
    return {
        name: tensor
        for name, tensor in saved.items()
        if not isinstance(tensor, torch.nn.Parameter) or tensor.requires_grad or name.startswith("parts.")
    }
