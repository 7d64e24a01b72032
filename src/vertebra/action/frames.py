"""What an action is measured from, and what a gripper's number means; each with its inverse.

    absolute    where to be                               a₀        a₁        a₂
    delta       how far from the action before it         a₀ − s    a₁ − a₀   a₂ − a₁      s: the state when asked
    relative    how far from the state                    a₀ − s    a₁ − s    a₂ − s

Normalisation comes after the one and before the other: each frame has statistics of its own. It knows no robot, and
nothing is changed in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from vertebra.action.numbers import like, require_numbers
from vertebra.errors import DataError, UnknownNameError

Frame = Literal["absolute", "delta", "relative"]
FRAMES: tuple[Frame, ...] = ("absolute", "delta", "relative")
Gripper = Literal["as-is", "binary", "sign", "sign-inverted"]
GRIPPERS: tuple[Gripper, ...] = ("as-is", "binary", "sign", "sign-inverted")


def to_frame(actions: Any, frame: Frame, state: Any = None, *, dims: Sequence[bool] | None = None) -> np.ndarray:
    """Absolute actions [..., chunk, dims] as `frame` measures them; `dims` says which are meant, None: all."""
    absolute = require_numbers(actions, "actions")
    if _known(frame) == "absolute":
        return like(absolute, actions)
    start, which = _start(absolute, state, frame, dims)
    before = np.concatenate([start, absolute[..., :-1, :]], axis=-2) if frame == "delta" else start
    return like(np.where(which, absolute - before, absolute), actions)


def from_frame(actions: Any, frame: Frame, state: Any = None, *, dims: Sequence[bool] | None = None) -> np.ndarray:
    """The inverse: absolute actions from those that `frame` measures."""
    given = require_numbers(actions, "actions")
    if _known(frame) == "absolute":
        return like(given, actions)
    start, which = _start(given, state, frame, dims)
    moved = given.cumsum(axis=-2) if frame == "delta" else given
    return like(np.where(which, start + moved, given), actions)


def gripped(actions: Any, how: Gripper, *, dim: int = -1) -> np.ndarray:
    """Actions [..., dims] with a gripper's number between 0 and 1 as a robot takes it.

    `binary`: 1 from one half on, else 0. `sign`: 1 above one half, −1 below it, 0 at it; `sign-inverted`: the reverse,
    as LIBERO takes what OpenVLA says.
    """
    if how not in GRIPPERS:
        raise UnknownNameError("gripper", how, GRIPPERS)
    made = require_numbers(actions, "actions")
    if how == "as-is":
        return like(made, actions)
    number = made[..., dim]
    if how == "binary":
        made[..., dim] = number >= 0.5
    else:
        made[..., dim] = np.sign(2 * number - 1) * (1 if how == "sign" else -1)
    return like(made, actions)


def _known(frame: str) -> str:
    if frame not in FRAMES:
        raise UnknownNameError("frame", frame, FRAMES)
    return frame


def _start(actions: np.ndarray, state: Any, frame: str, dims: Sequence[bool] | None) -> tuple[np.ndarray, np.ndarray]:
    """(the state [..., 1, dims], which dimensions are meant [dims]); a state may say more than an action has."""
    if actions.ndim < 2:
        raise DataError(
            f"actions have the shape {actions.shape}; expected [..., chunk, dims], whose steps follow each other"
        )
    wide = actions.shape[-1]
    which = np.ones(wide, bool) if dims is None else np.asarray(dims, bool)
    if which.shape != (wide,):
        raise DataError(f"`dims` has {which.size} entries for {wide} dimensions")
    if state is None:
        raise DataError(f"`{frame}` actions are measured from the robot's state; give it")
    start = require_numbers(state, "the state")
    needed = int(np.flatnonzero(which).max(initial=-1)) + 1
    if start.ndim < 1 or start.shape[-1] < needed:
        raise DataError(
            f"the state has the shape {start.shape}; expected at least {needed} numbers, in the actions' order"
        )
    whole = np.zeros((*start.shape[:-1], wide))
    shared = min(wide, start.shape[-1])
    whole[..., :shared] = start[..., :shared]
    return whole[..., None, :], which
