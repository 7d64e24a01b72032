"""The optimizer's groups and the learning rate's course. It knows parameters and numbers, no trainer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from vertebra.backbone.vocabulary import restricted_parameters
from vertebra.training.config import OptimConfig


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices decay; norms, biases and single vectors never do."""
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
    found = [{"params": decays, "weight_decay": weight_decay}, {"params": stays, "weight_decay": 0.0}]
    return [group for group in found if group["params"]]


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW in its fused form, which is the fastest on CPUs and GPUs and makes no temporaries."""
    made = groups(model, config.weight_decay)
    known = all(p.device.type in ("cpu", "cuda") for group in made for p in group["params"])
    return torch.optim.AdamW(made, lr=config.lr, betas=config.betas, eps=config.eps, fused=known)


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
