"""Real-time chunking: a new chunk goes on from the one that is carried out while it is computed.

    old chunk   a₀ a₁ a₂ a₃ a₄ a₅ a₆ a₇          `previous.actions` = a₂ … a₇, of which `delay` are carried out before
    new chunk         b₀ b₁ b₂ b₃ b₄ b₅ b₆ b₇     the new chunk is there
    weights           1  1  ↘  ↘  ↘  ↘  0  0

    guided     each denoising step is pulled towards the old chunk, softly where it may still differ; any flow head
    trained    the first `delay` actions enter clean, at time 1; a head that was trained with as many (`delay`)

It knows a velocity field, and nothing behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from vertebra.action.chunks import guidance_weight, prefix_weights
from vertebra.errors import ConfigError, UnknownNameError
from vertebra.model.heads.prefix import Prefix

How = Literal["guided", "trained"]
HOWS: tuple[How, ...] = ("guided", "trained")
Velocity = Callable[[torch.Tensor, torch.Tensor, Prefix], torch.Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Previous:
    """What is left of the chunk that is being carried out, from the action on at which the new one begins."""

    actions: torch.Tensor
    """[B, overlap, dims] as the head gave them: in −1 … 1, before anything was made of them."""
    delay: int
    """How many of them are carried out whatever comes."""
    how: How = "guided"
    most: float = 5.0
    """`guided`: the strongest pull."""

    def __post_init__(self) -> None:
        if self.how not in HOWS:
            raise UnknownNameError("way to go on from a chunk", self.how, HOWS)
        if self.actions.ndim != 3 or not self.actions.is_floating_point():
            raise ConfigError(
                f"previous actions are {self.actions.dtype} {list(self.actions.shape)}; expected numbers [rows, actions, dims]"
            )
        if not 0 <= self.delay <= self.actions.shape[1]:
            raise ConfigError(
                f"delay is {self.delay} of {self.actions.shape[1]} actions that are left; expected at most those"
            )
        if not bool(torch.isfinite(self.actions).all()):
            raise ConfigError("previous actions hold NaN or infinite values; begin without them")
        if not self.most > 0:
            raise ConfigError(f"most is {self.most}; expected above 0: how strongly a step is pulled at most")


def require_previous(previous: Previous, shape: tuple[int, int, int], trained: int) -> None:
    """Whether a head that makes chunks of this shape can go on from these actions."""
    rows, overlap, dims = previous.actions.shape
    if (rows, dims) != (shape[0], shape[2]) or overlap > shape[1]:
        raise ConfigError(
            f"previous actions have the shape {[rows, overlap, dims]}; expected [{shape[0]}, at most {shape[1]}, {shape[2]}]"
        )
    if previous.how == "trained" and previous.delay > trained:
        known = f"at most {trained} decided actions" if trained else "none (delay=0)"
        raise ConfigError(
            f'how="trained" with delay={previous.delay}, and this head was trained to go on from {known}. Train it with '
            'a larger `delay`, or take how="guided"'
        )


def guided(velocity: Velocity, prefix: Prefix, x: torch.Tensor, steps: int, previous: Previous) -> torch.Tensor:
    """Denoise with a pull towards the previous chunk: each step asks where it would end, and how the chunk must change so
    that this end agrees with what is decided (Black et al., 2025)."""
    # tensors that were made in inference mode cannot be gone back through
    with torch.inference_mode(False), torch.no_grad():
        prefix, x, decided = prefix.with_gradients(), x.clone(), previous.actions.clone()
        count, chunk = decided.shape[1], x.shape[1]
        target = torch.nn.functional.pad(decided.to(x), (0, 0, 0, chunk - count))
        firm = prefix_weights(chunk, previous.delay, count)
        weights = torch.as_tensor(firm, dtype=x.dtype, device=x.device)[:, None]
        for step in range(steps):
            moment = step / steps
            moves, pull = _pulled(velocity, prefix, x, moment, target, weights)
            x = x + (moves + guidance_weight(moment, most=previous.most) * pull) / steps
    return x


def _pulled(
    velocity: Velocity, prefix: Prefix, x: torch.Tensor, moment: float, target: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where chunks move, and where they must move so that their end comes nearer to its target."""
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        moves = velocity(at, torch.full(x.shape[:2], moment, device=x.device), prefix)
        end = at + (1 - moment) * moves
        (pull,) = torch.autograd.grad(end, at, weights * (target - end.detach()))
    return moves.detach(), pull
