"""A block that leaves a backbone as it found it: modes, gradients, settings, checkpointing, and random state.

Checks work on copies of the tensors and tokenizers that they change; this restores what is merely switched.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_ABSENT = object()
# transformers keeps the handles of the last hooks alone, and adds new ones whenever checkpointing is switched on
_SWITCHES = (
    "training",
    "gradient_checkpointing",
    "_gradient_checkpointing_func",
    "_require_grads_hooks",
    "_require_grads_hook",
)


@contextmanager
def unchanged(backbone: Any) -> Iterator[None]:
    """Restore, on any way out of the block, everything that a check may switch."""
    llm = backbone.llm
    switches = [
        (module, {name: module.__dict__.get(name, _ABSENT) for name in _SWITCHES}) for module in backbone.modules()
    ]
    hooks = [(module._forward_hooks, dict(module._forward_hooks)) for module in backbone.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in backbone.parameters()]
    settings = [(config, dict(config.__dict__)) for config in (llm.config, llm.generation_config) if config is not None]
    generation = llm.generation_config
    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(_devices(backbone)):
        try:
            for parameter, _, _ in parameters:
                parameter.grad = None
            yield
        finally:
            for parameter, requires_grad, grad in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad
            for module, before in switches:
                _put_back(module.__dict__, before)
            for registered, before in hooks:
                registered.clear()
                registered.update(before)
            llm.generation_config = generation
            for config, values in settings:
                config.__dict__.clear()
                config.__dict__.update(values)
            random.setstate(python)
            np.random.set_state(numpy_state)


def _put_back(now: dict[str, Any], before: dict[str, Any]) -> None:
    for name, value in before.items():
        if value is _ABSENT:
            now.pop(name, None)
        else:
            now[name] = value


def _devices(backbone: Any) -> list[int]:
    """The accelerators whose random state may be drawn from."""
    return [device.index or 0 for device in {p.device for p in backbone.parameters()} if device.type == "cuda"]
