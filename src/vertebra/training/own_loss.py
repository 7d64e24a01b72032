"""A loss of one's own: found by its name (in the current folder too), held against its signature before anything loads,
and its value held against what a loss is at every step. It knows functions, not models."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from vertebra.config.objects import as_text, object_named
from vertebra.errors import ConfigError, TrainingError, VertebraError

LossFunction = Callable[[Any, dict[str, Any], Any], torch.Tensor]
"""`(outputs, batch, num_items) -> loss`, where outputs hold the logits of every position."""

_FORM = (
    "(outputs, batch, num_items): what the model gives, with the logits of every position; the batch; and the weight of the "
    "whole accumulated batch over all ranks, to divide by"
)


def loss_function(name: str) -> LossFunction:
    """A function by `package.module:name`, taken from the current folder or from what is installed."""
    found = object_named(name, setting="loss.function")
    if not callable(found):
        raise ConfigError(f"loss.function `{name}` is a {type(found).__name__}; expected a function {_FORM}")
    require_signature(found, name)
    return found


def require_signature(function: Any, name: str | None = None) -> None:
    """Refuse a function that cannot be called with outputs, batch and num_items."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built in: only a call would show
        return
    try:
        signature.bind(None, None, None)
    except TypeError:
        called = name or getattr(function, "__qualname__", type(function).__name__)
        raise ConfigError(f"the loss function `{called}` takes {signature}; expected {_FORM}") from None


def loss_by(function: LossFunction, outputs: Any, batch: dict[str, Any], items: Any, *, trains: bool) -> torch.Tensor:
    """What the function makes of a batch: one number, and where the model trains, one with a gradient."""
    called = getattr(function, "__qualname__", type(function).__name__)
    try:
        loss = function(outputs, batch, items)
    except (VertebraError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a function of the user's own may throw anything
        raise TrainingError(
            f"the loss function `{called}` failed: {as_text(error)}. VERTEBRA_DEBUG=1 shows the whole traceback"
        ) from error
    if not isinstance(loss, torch.Tensor):
        raise TrainingError(
            f"the loss function `{called}` gives a {type(loss).__name__}; expected a tensor of one number"
        )
    if loss.numel() != 1:
        raise TrainingError(
            f"the loss function `{called}` gives {list(loss.shape)}; expected one number: a sum over positions, divided by "
            "num_items"
        )
    if trains and torch.is_grad_enabled() and not loss.requires_grad:
        raise TrainingError(
            f"the loss function `{called}` gives a number without a gradient, from which nothing learns: no `.detach()`, "
            "`.item()` or `no_grad` may stand on its way"
        )
    return loss.reshape(())
