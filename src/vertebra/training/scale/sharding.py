"""FSDP2 applied to a plain model from outside: every decoder layer is a unit, and so is what is left.

torch's own `fully_shard`, on any device: accelerate offers it on accelerators alone, and a CPU with gloo is where it is
tested. Parameters become shards in place; the modules, their names and their forward stay what they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from vertebra.backbone.vocabulary import restricted_parameters
from vertebra.errors import ConfigError
from vertebra.training.config import RunConfig
from vertebra.training.learner import Learner
from vertebra.training.scale.start import Late
from vertebra.tune.parts import parts_of


def shard(learner: Learner, config: RunConfig, device: torch.device, world: int) -> Learner:
    """Shard a learner over all ranks, or inside groups of `parallel.hybrid` ranks with copies between them.

    One layer after the other is made real, moved and cut, so that a rank holds its shards, what is no layer, and never
    more than one layer whole.
    """
    backbone = parts_of(learner.model).backbone
    if backbone is not None and restricted_parameters(backbone):
        raise ConfigError(
            "only rows of added tokens train in this model (`only_new_rows`), and a shard of a table cannot tell which they "
            "are: use parallel.kind=ddp, or stage `lora`"
        )
    half = config.optim.precision == "bf16" and device.type != "cpu"
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if half else None
    options: dict[str, Any] = {"mesh": mesh_of(config.parallel.hybrid, device.type, world)}
    options |= {"mp_policy": policy} if policy else {}
    late = learner.late or Late()
    for layer in parts_of(learner.model).layers:
        late.ready(layer)
        _check_types(layer)
        fully_shard(layer, **options)
    # towers stay with the rest: a unit that some rank's text-only rows never enter would leave the others waiting
    late.ready(learner)
    _check_types(learner)
    fully_shard(learner, **options)
    # shown in any case: the memory that layers are gathered in must not be made first while answers are generated,
    # in torch's inference mode, where training could not use it again
    learner.to_show = True
    learner.register_forward_hook(_let_go)
    return learner


def _let_go(learner: Any, inputs: Any, out: Any) -> None:
    """What is no layer stays gathered for the backward; where none follows (evaluation), it must be let go of by hand,
    or checkpoints would look at the gathered tensors."""
    if not (isinstance(out, dict) and out["loss"].requires_grad):
        learner.reshard()


def _check_types(module: nn.Module) -> None:
    """What one unit sends must be of one type."""
    types: dict[torch.dtype, str] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and not isinstance(parameter, DTensor):
            types.setdefault(parameter.dtype, name)
    if len(types) > 1:
        listed = ", ".join(f"{name} is {dtype}" for dtype, name in types.items())
        raise ConfigError(
            f"fsdp sends gradients of one type, and what trains together here has several: {listed}. Keep the weights in "
            "float32 (model.dtype) and let autocast narrow them (optim.precision=bf16)"
        )


@contextmanager
def accumulating(learner: Any, *, hybrid: bool, whole: bool) -> Iterator[None]:
    """Inside, a micro-batch's gradients are added up and not sent between copies.

    Shards still reduce theirs, and stay as small as shards, unless `whole` gradients are kept until the step.
    """
    if whole:
        learner.set_requires_gradient_sync(False)
    elif hybrid:
        learner.set_requires_all_reduce(False)
    try:
        yield
    finally:
        learner.set_requires_gradient_sync(True)
        learner.set_requires_all_reduce(True)


def mesh_of(hybrid: int, kind: str, world: int) -> DeviceMesh:
    """One row of all ranks, or rows of `hybrid` ranks that hold one copy each."""
    if not hybrid:
        return init_device_mesh(kind, (world,))
    check_hybrid(hybrid, world)
    return init_device_mesh(kind, (world // hybrid, hybrid), mesh_dim_names=("replicate", "shard"))


def check_hybrid(hybrid: int, world: int) -> None:
    """Groups must divide the ranks, or nobody could say who holds what."""
    if hybrid and world % hybrid:
        fits = ", ".join(str(n) for n in range(2, world) if world % n == 0) or "none"
        raise ConfigError(
            f"parallel.hybrid is {hybrid}, and {world} ranks are no multiple of it. Groups that divide them: {fits}; "
            "0 shards over all"
        )


def leave_unwrapped(accelerator: Any, config: RunConfig) -> None:
    """Have accelerate prepare the model's autocast and nothing else: the shards reduce their own gradients."""
    accelerator.prepare_model = partial(accelerator.prepare_model, evaluation_mode=True)
    hybrid, whole = bool(config.parallel.hybrid), config.parallel.whole_gradients
    accelerator.no_sync = lambda model=None: accumulating(model, hybrid=hybrid, whole=whole)
