"""Normalisation in pairs: `normalize` takes a robot's own units to −1…1, `unnormalize` back, each dimension by its rule.

    quantile    2 (x − q01) / (q99 − q01 + ε) − 1, cut to −1…1        ½ (y + 1) (q99 − q01 + ε) + q01
    min-max     the same with min and max
    mean-std    (x − mean) / (std + ε)                                 y (std + ε) + mean
    none        x                                                      y

Dimensions that the mask leaves out stay as they are (a gripper), and those that never moved in the data (min = max) become
0. Of proprio everything is cut to −1…1. The inverse cuts nothing: what it is given beyond −1…1 comes out beyond the
data, and `outside` finds it. Nothing is changed in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from vertebra.action.numbers import like, require_dims, require_numbers
from vertebra.action.statistics import Moments
from vertebra.errors import UnknownNameError

Norm = Literal["quantile", "mean-std", "min-max", "none"]
NORMS: tuple[Norm, ...] = ("quantile", "mean-std", "min-max", "none")
EPSILON = 1e-8
_BOUNDS = {"quantile": ("q01", "q99"), "min-max": ("min", "max")}


def normalize(
    values: Any, moments: Moments, how: Norm | Sequence[Norm] = "quantile", *, proprio: bool = False
) -> np.ndarray:
    """Values [..., dims] in −1…1, in the float type that came; `how`: one rule, or one a dimension."""
    given = require_numbers(values, "proprio" if proprio else "actions")
    require_dims(given, moments.dims, "proprio" if proprio else "actions")
    made = np.empty_like(given)
    for rule, at in _rules(how, moments.dims):
        if rule in _BOUNDS:
            low, high = (moments.need(name, f"`{rule}`")[at] for name in _BOUNDS[rule])
            made[..., at] = np.clip(2 * (given[..., at] - low) / (high - low + EPSILON) - 1, -1, 1)
        elif rule == "mean-std":
            mean, std = moments.need("mean", "`mean-std`")[at], moments.need("std", "`mean-std`")[at]
            made[..., at] = (given[..., at] - mean) / (std + EPSILON)
        else:
            made[..., at] = given[..., at]
    made = np.where(_normalized(how, moments), made, given)
    made = np.where(moments.constant, 0.0, made)
    return like(np.clip(made, -1, 1) if proprio else made, values)


def unnormalize(values: Any, moments: Moments, how: Norm | Sequence[Norm] = "quantile") -> np.ndarray:
    """The inverse: values [..., dims] of −1…1 in the robot's own units, in the float type that came."""
    given = require_numbers(values, "actions")
    require_dims(given, moments.dims, "actions")
    made = np.empty_like(given)
    for rule, at in _rules(how, moments.dims):
        if rule in _BOUNDS:
            low, high = (moments.need(name, f"`{rule}`")[at] for name in _BOUNDS[rule])
            made[..., at] = 0.5 * (given[..., at] + 1) * (high - low + EPSILON) + low
        elif rule == "mean-std":
            mean, std = moments.need("mean", "`mean-std`")[at], moments.need("std", "`mean-std`")[at]
            made[..., at] = given[..., at] * (std + EPSILON) + mean
        else:
            made[..., at] = given[..., at]
    return like(np.where(_normalized(how, moments), made, given), values)


def limits(moments: Moments, how: Norm | Sequence[Norm] = "quantile") -> tuple[np.ndarray, np.ndarray]:
    """(lowest, highest) [dims] that the data ever had, in the robot's units; endless where a dimension is not normalised.

    Where nobody counted the extremes, those that the rule knows stand for them.
    """
    low, high = np.full(moments.dims, -np.inf), np.full(moments.dims, np.inf)
    for rule, at in _rules(how, moments.dims):
        for bound, names in ((low, ("min", "q01")), (high, ("max", "q99"))):
            known = next((value for name in names if (value := getattr(moments, name)) is not None), None)
            if known is not None and rule != "none":
                bound[at] = known[at]
    kept = _normalized(how, moments)
    return np.where(kept, low, -np.inf), np.where(kept, high, np.inf)


def outside(
    actions: Any, moments: Moments, how: Norm | Sequence[Norm] = "quantile", *, room: float = 1e-6
) -> np.ndarray:
    """[..., dims] of bool: which actions, in the robot's units, lie beyond everything that the data had."""
    given = require_numbers(actions, "actions")
    low, high = limits(moments, how)
    slack = room * np.where(np.isfinite(high - low), high - low, 0.0)
    return np.asarray((given < low - slack) | (given > high + slack))


def _rules(how: Norm | Sequence[Norm], dims: int) -> list[tuple[str, np.ndarray]]:
    """Each rule, and the dimensions that follow it."""
    each = [how] * dims if isinstance(how, str) else list(how)
    for rule in each:
        if rule not in NORMS:
            raise UnknownNameError("normalization", rule, NORMS)
    require_dims(np.asarray(each), dims, "rules of normalization")
    return [(rule, np.array([one == rule for one in each])) for rule in dict.fromkeys(each)]


def _normalized(how: Norm | Sequence[Norm], moments: Moments) -> np.ndarray:
    """[dims]: dimensions that anything is done to."""
    keeps = np.zeros(moments.dims, bool)
    for rule, at in _rules(how, moments.dims):
        keeps |= at & (rule == "none")
    return moments.masked & ~keeps
