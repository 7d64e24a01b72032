"""New rows of a head that has a bias (Phi): PEFT's layer for them multiplies by the matrix and forgets to add it.

    PEFT's own        W' x           every logit moves before anything has been learned, and no merge can be right
    ours              W' x + bias

An adapter that PEFT trained alone keeps PEFT's layer: what it learned holds without the bias, and a merge takes the bias
away. This file imports PEFT at once, so that others import it where they have asked for PEFT.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from torch import nn
from torch.nn import functional as F


class BiasedRows(TrainableTokensLayer):
    """PEFT's layer over a linear with a bias."""

    def forward_adapters(self, x: torch.Tensor, active_adapters: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.disable_adapters or self.merged or not active_adapters:
            return super().forward_adapters(x, active_adapters, *args, **kwargs)  # the linear itself
        self._check_overlapping_tokens(active_adapters)
        return F.linear(x, self.get_merged_weights(active_adapters), self.get_base_layer().bias)


def add_bias(root: nn.Module) -> None:
    """Let every layer of new rows under `root` add the bias of the linear below it."""
    for layer in _forgetful(root):
        # the class alone differs: PEFT makes these layers itself, and offers no place to name another
        layer.__class__ = BiasedRows


def forgets_bias(root: nn.Module) -> bool:
    """Whether rows of a head train here without its bias."""
    return any(True for _ in _forgetful(root))


@torch.no_grad()
def without_bias(layer: nn.Module) -> None:
    """Before a merge: the linear below a layer that never added its bias gives what was trained without it."""
    for forgetful in _forgetful(layer):
        forgetful.get_base_layer().bias.zero_()


def _forgetful(root: nn.Module) -> Iterator[Any]:
    for module in root.modules():
        if isinstance(module, TrainableTokensLayer) and not isinstance(module, BiasedRows):
            base = module.get_base_layer()
            if isinstance(base, nn.Linear) and base.bias is not None:
                yield module
