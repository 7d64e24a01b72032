"""FSDP2 applied to a plain model from outside: every decoder layer is a unit, and so is what is left.

torch's own `fully_shard`, on any device: accelerate offers it on accelerators alone, and a CPU with gloo is where it is
tested. Parameters become shards in place; the modules, their names and their forward stay what they were.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from vertebra.errors import ConfigError
from vertebra.train.config import RunConfig
from vertebra.train.learner import Learner
from vertebra.tune.parts import parts_of


def shard(learner: Learner, config: RunConfig, device: torch.device, world: int) -> Learner:
    """Shard a learner over all ranks, or inside groups of `parallel.hybrid` ranks with copies between them."""
    learner.to(device)
    half = config.optim.precision == "bf16" and device.type != "cpu"
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if half else None
    options: dict[str, Any] = {"mesh": mesh_of(config.parallel.hybrid, device.type, world)}
    options |= {"mp_policy": policy} if policy else {}
    for layer in parts_of(learner.model).layers:
        fully_shard(layer, **options)
    fully_shard(learner, **options)
    return learner


def mesh_of(hybrid: int, kind: str, world: int) -> DeviceMesh:
    """One row of all ranks, or rows of `hybrid` ranks that hold one copy each."""
    if not hybrid:
        return init_device_mesh(kind, (world,))
    if world % hybrid:
        raise ConfigError(f"parallel.hybrid is {hybrid}; {world} ranks are no multiple of it")
    return init_device_mesh(kind, (world // hybrid, hybrid), mesh_dim_names=("replicate", "shard"))


def leave_unwrapped(accelerator: Any) -> None:
    """Have accelerate prepare the model's autocast and nothing else: the shards reduce their own gradients."""
    accelerator.prepare_model = partial(accelerator.prepare_model, evaluation_mode=True)
