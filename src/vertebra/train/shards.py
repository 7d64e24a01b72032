"""What several processes share: sums, votes, and checkpoints of weights that are whole on every rank or sharded.

Whole (one process, DDP): rank 0 writes one file; every rank's generators go with it. Sharded (FSDP2): torch's
distributed checkpoint, which loads on any number of ranks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from vertebra.errors import CheckpointError
from vertebra.train import checkpoint

SHARDS = "shards"


class Shards:
    """The processes of one run."""

    def __init__(self, accelerator: Any, *, sharded: bool = False) -> None:
        self.accelerator = accelerator
        self.world = int(accelerator.num_processes)
        self.rank = int(accelerator.process_index)
        self.sharded = sharded

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

    def leave(self) -> None:
        """All ranks end together: one that left earlier would take the others with it."""
        if self.world > 1:
            dist.barrier()
            dist.destroy_process_group()

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
        if self.sharded:
            return self._save_sharded(trainer, state, payload, trainer_state)
        if self.rank != 0:
            return None
        learner = trainer.accelerator.unwrap_model(trainer.model)
        payload["optimizer"] = trainer.writer.held(plain_optimizer(trainer).state_dict(), "optimizer")
        snapshot = checkpoint.Snapshot(
            step=int(state["step"]),
            weights=trainer.writer.held(changing(learner.model), "weights"),
            payload=payload,
            state=state,
            trainer_state=trainer_state,
        )
        trainer.writer.save(snapshot, best=trainer.judge.best_step)
        return trainer.writer.folder / checkpoint.name_of(snapshot.step)

    def load_weights(self, trainer: Any, folder: Path) -> None:
        """Put a checkpoint's weights into the model, sharded or whole as each of the two may be."""
        learner = trainer.accelerator.unwrap_model(trainer.model)
        if (folder / SHARDS).is_dir():
            state = {"model": get_model_state_dict(learner)}
            self._read(state, folder)
            set_model_state_dict(learner, state["model"])
            return
        if self.sharded:
            whole: Any = {f"model.{name}": tensor for name, tensor in checkpoint.read_weights(folder).items()}
            set_model_state_dict(learner, whole, options=StateDictOptions(full_state_dict=True, strict=False))
            return
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
        optimizer = plain_optimizer(trainer)
        if (folder / SHARDS).is_dir():
            learner = trainer.accelerator.unwrap_model(trainer.model)
            state = {"optimizer": get_optimizer_state_dict(learner, optimizer)}
            self._read(state, folder)
            set_optimizer_state_dict(learner, optimizer, state["optimizer"])
        elif self.sharded:
            raise CheckpointError(f"`{folder}` was written without sharding; resume it with parallel.kind=ddp")
        else:
            optimizer.load_state_dict(payload.pop("optimizer"))
        return payload

    def whole_state(self, trainer: Any) -> dict[str, torch.Tensor]:
        """Every tensor of the model, gathered onto rank 0's CPU; all ranks must call it."""
        learner = trainer.accelerator.unwrap_model(trainer.model)
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        found: dict[str, Any] = get_model_state_dict(learner, options=options)
        return {name.removeprefix("model."): tensor for name, tensor in found.items()}

    def _save_sharded(self, trainer: Any, state: Mapping[str, Any], payload: Any, trainer_state: str) -> Path | None:
        """Each rank writes its own shard into one folder, which rank 0 names, marks and renames."""
        learner = trainer.accelerator.unwrap_model(trainer.model)
        shards = {
            "model": get_model_state_dict(learner),
            "optimizer": get_optimizer_state_dict(learner, plain_optimizer(trainer)),
        }
        step = int(state["step"])

        def together(part: Path | None) -> None:
            where: list[Any] = [str(part)]
            dist.broadcast_object_list(where, src=0)
            dcp.save(shards, checkpoint_id=Path(where[0]) / SHARDS)

        made = None
        if self.rank == 0:

            def fill(part: Path) -> None:
                together(part)
                checkpoint.write_beside(part, step, payload, state, trainer_state)

            made = checkpoint.write_with(trainer.writer.folder, step, fill)
            checkpoint.prune(trainer.writer.folder, keep=trainer.writer.keep, best=trainer.judge.best_step)
        else:
            together(None)
        dist.barrier()  # nobody goes on with a checkpoint that is not there yet
        return made

    def _read(self, state: dict[str, Any], folder: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # so it is, with one process
                dcp.load(state, checkpoint_id=folder / SHARDS, no_dist=self.world == 1)
        except (dcp.api.CheckpointException, RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"`{folder}` is the checkpoint of another model: {error}") from error


def plain_optimizer(trainer: Any) -> Any:
    """The torch optimizer inside accelerate's."""
    return getattr(trainer.optimizer, "optimizer", trainer.optimizer)


def changing(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a checkpoint must hold: what trains, buffers that are saved, and parts that no pretrained file brings."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        frozen = isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad and not name.startswith("parts.")
        if not frozen and id(tensor) not in seen:  # tied tensors once
            found[name] = tensor
            seen.add(id(tensor))
    return found
