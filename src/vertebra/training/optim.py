"""The optimizer's groups and the learning rate's course. It knows parameters and numbers, no trainer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from vertebra.backbone.vocabulary import restricted_parameters
from vertebra.training.config import OptimConfig
from vertebra.training.muon import Muon


def parted(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters: (matrices, which decay; norms, biases and single vectors, which never do)."""
    norms = {
        id(parameter)
        for module in model.modules()
        if "norm" in type(module).__name__.lower()
        for parameter in module.parameters(recurse=False)
    }
    # rows that must not move have no gradient, and decay would move them
    rows = {id(p) for module in model.modules() if hasattr(module, "growths") for p in restricted_parameters(module)}
    decays: list[nn.Parameter] = []
    stays: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        single = parameter.ndim < 2 or id(parameter) in norms or id(parameter) in rows
        single = single or name.endswith(".bias") or "trainable_tokens" in name  # rows of tokens are vectors
        (stays if single else decays).append(parameter)
    return decays, stays


def groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """The optimizer's groups, each with its settings."""
    decays, stays = parted(model)
    hidden: list[nn.Parameter] = []
    if config.kind == "muon":
        rows = _rows_of_tokens(model)
        hidden = [parameter for parameter in decays if parameter.ndim == 2 and id(parameter) not in rows]
        taken = {id(parameter) for parameter in hidden}
        decays = [parameter for parameter in decays if id(parameter) not in taken]
    found: list[dict[str, Any]] = [
        {"params": hidden, "weight_decay": config.weight_decay, "orthogonal": True},
        {"params": decays, "weight_decay": config.weight_decay},
        {"params": stays, "weight_decay": 0.0},
    ]
    return [group for group in found if group["params"]]


def _rows_of_tokens(model: nn.Module) -> set[int]:
    """Ids of the weights of embeddings and heads: a row of one is a token's, and says nothing of the others."""
    tables: list[Any] = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    tables += [module.get_output_embeddings() for module in model.modules() if isinstance(module, PreTrainedModel)]
    return {id(table.weight) for table in tables if table is not None}


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW in its fused form, which is the fastest on CPUs and GPUs and makes no temporaries; or Muon, which has it inside."""
    made = groups(model, config)
    known = all(p.device.type in ("cpu", "cuda") for group in made for p in group["params"])
    kind = {"adamw": torch.optim.AdamW, "muon": Muon}[config.kind]
    return kind(made, lr=config.lr, betas=config.betas, eps=config.eps, fused=known)


def warmup_steps(warmup: float, steps: int) -> int:
    """A share of all steps where it is below 1, a number of steps otherwise."""
    return min(steps, math.ceil(warmup * steps) if warmup < 1 else int(warmup))


def lr_factor(step: int, steps: int, config: OptimConfig) -> float:
    """The learning rate of step `step` (from 0), as a share of the highest."""
    rising = warmup_steps(config.warmup, steps)
    if step < rising:
        return (step + 1) / rising
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, (step - rising) / max(1, steps - rising))
    course = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.floor + (1 - config.floor) * course


def make_schedule(optimizer: Any, steps: int, config: OptimConfig) -> torch.optim.lr_scheduler.LambdaLR:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, steps, config))
