"""What several processes share: sums, votes, and checkpoints of weights that are whole on every rank or sharded.

Whole (one process, DDP): rank 0 writes one file; every rank's generators go with it. Sharded (FSDP2): torch's
distributed checkpoint, which loads on any number of ranks.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from vertebra.errors import CheckpointError
from vertebra.training import checkpoint

SHARDS = "shards"
PREFIX = "model."
"""How a learner's names begin, before those of its model."""


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
        options = StateDictOptions(strict=False)  # what does not change is in no checkpoint
        if (folder / SHARDS).is_dir():
            state = {"model": sharded_changes(learner)}
            self._read(state, folder)
            set_model_state_dict(learner, state["model"], options=options)
            return
        named = changing(learner.model)
        saved = checkpoint.read_weights(folder)
        wrong = sorted(set(saved) ^ set(named)) or [n for n, t in named.items() if t.shape != saved[n].shape]
        if wrong:
            raise CheckpointError(
                f"`{folder}` is the checkpoint of another model, or of another choice of what trains: {', '.join(wrong[:4])}"
            )
        with torch.no_grad():
            for name, tensor in named.items():
                tensor.copy_(like(tensor, saved[name]))

    def load_optimizer(self, trainer: Any, folder: Path) -> dict[str, Any]:
        """Put the optimizer's state in, and return the rest of the payload."""
        payload = checkpoint.read_payload(folder)
        optimizer = plain_optimizer(trainer)
        if (folder / SHARDS).is_dir():
            learner = trainer.accelerator.unwrap_model(trainer.model)
            state = {"optimizer": get_optimizer_state_dict(learner, optimizer)}
            self._read(state, folder)
            set_optimizer_state_dict(learner, optimizer, state["optimizer"])
            return payload
        saved = payload.pop("optimizer")
        if _kinds(saved) != _kinds(optimizer.state_dict()):
            raise CheckpointError(
                f"`{folder}` was written by another optimizer: resume with the `optim.kind` that it had, or begin a run of its "
                "own from its weights (model.start)"
            )
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for number, state in saved["state"].items():
            of = parameters[int(number)]
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape == of.shape:
                    state[name] = like(of, value)
        optimizer.load_state_dict(saved)
        return payload

    def _save_sharded(self, trainer: Any, state: Mapping[str, Any], payload: Any, trainer_state: str) -> Path | None:
        """Each rank writes its own shard into one folder, which rank 0 names, marks and renames."""
        learner = trainer.accelerator.unwrap_model(trainer.model)
        shards = {
            "model": sharded_changes(learner),
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


def sharded_changes(learner: Any) -> dict[str, Any]:
    """What a sharded checkpoint holds of a learner, by the learner's names."""
    kept = changing(learner.model)
    found: dict[str, Any] = get_model_state_dict(learner)
    return {name: tensor for name, tensor in found.items() if name.removeprefix(PREFIX) in kept}


def like(tensor: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """A whole tensor in the layout of another: each rank takes its own rows of what it read, and sends nothing."""
    if not isinstance(tensor, DTensor):
        return whole
    return distribute_tensor(whole.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None)


def consolidate(place: str | Path, folder: str | Path, *, limit: float = 5e9) -> Path:
    """The weights of a sharded checkpoint as safetensors files of at most `limit` bytes, with their index.

    By one process, which holds one file's tensors at a time. Names are the model's own.
    """
    place, folder = Path(place), Path(folder)
    if not (place / SHARDS).is_dir():
        raise CheckpointError(f"`{place}` has no `{SHARDS}/`: it is no sharded checkpoint, or is one already whole")
    wrong = checkpoint.faults(place)
    if wrong:
        raise CheckpointError(f"`{place}` is damaged: {'; '.join(wrong)}")
    about = dcp.FileSystemReader(place / SHARDS).read_metadata().state_dict_metadata
    key = f"model.{PREFIX}"
    known = {name.removeprefix(key): entry for name, entry in about.items() if name.startswith(key)}
    groups: list[dict[str, Any]] = [{}]
    room = limit
    for name, entry in known.items():
        size = entry.size.numel() * entry.properties.dtype.itemsize  # type: ignore[union-attr]
        if groups[-1] and size > room:
            groups.append({})
            room = limit
        room -= size
        groups[-1][name] = entry
    folder.mkdir(parents=True, exist_ok=True)
    where: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        state = {key + name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in group.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(state, checkpoint_id=place / SHARDS, no_dist=True)
        save_file({name.removeprefix(key): tensor for name, tensor in state.items()}, folder / file)
        where |= dict.fromkeys(group, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}, indent=1))
    return folder


def _kinds(optimizer: Mapping[str, Any]) -> list[tuple[int, bool]]:
    """Of each group of an optimizer's state: how many parameters, and whether their steps are orthogonal."""
    return [(len(group["params"]), bool(group.get("orthogonal"))) for group in optimizer["param_groups"]]


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
