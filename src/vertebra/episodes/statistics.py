"""Statistics as LeRobot keeps them in `meta/stats.json` and beside each episode, and how it joins those of episodes.

Of an episode they are exact. Of a set, mean, std, min and max are those of all the data; its quantiles are the outermost
of all episodes, as LeRobot's are, and therefore wider than those of the data: those `vertebra.action.Counter` counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
FEW, MANY, GROWTH = 100, 10_000, 0.75
"""How many frames of a camera are counted: all of up to a hundred, then fewer and fewer of them."""
LARGE, SMALL = 300, 150
"""Pixels: an image with a side beyond the first is counted at about the second."""

Stats = dict[str, np.ndarray]


def of_numbers(values: np.ndarray) -> Stats:
    """Of [frames, …]; a scalar a frame counts as a vector of one."""
    rows = values.astype(np.float64).reshape(len(values), -1)
    shape = values.shape[1:] or (1,)
    found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    found |= {name: np.quantile(rows, share, axis=0) for name, share in QUANTILES.items()}
    return {name: value.reshape(shape) for name, value in found.items()} | {"count": np.array([len(values)])}


def finite_rows(values: np.ndarray) -> np.ndarray:
    """Which frames have numbers alone that 32 bits can hold, as trainings read them."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    return np.asarray(np.isfinite(narrow).all(tuple(range(1, narrow.ndim))))


def fits(values: np.ndarray, dtype: str) -> bool:
    """Whether numbers stay what they are in this type, but for rounding; what is not finite is another fault."""
    if np.issubdtype(dtype, np.floating) or values.dtype == dtype:
        return True
    with np.errstate(invalid="ignore"):
        return bool((values.astype(dtype) == values)[np.isfinite(values)].all())


def of_images(images: np.ndarray) -> Stats:
    """Of uint8 [frames, H, W, 3], in parts of one, each [3, 1, 1]; some frames stand for all where they are many."""
    frames = images[sampled(len(images))]
    step = max(1, max(frames.shape[1:3]) // SMALL) if max(frames.shape[1:3]) >= LARGE else 1
    pixels = frames[:, ::step, ::step].reshape(-1, 3)
    counts = np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])
    found = {"min": _order(counts, 0.0), "max": _order(counts, 1.0)}
    levels = np.arange(256)
    mean = (counts * levels).sum(1) / len(pixels)
    found["mean"] = mean
    found["std"] = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / len(pixels))
    found |= {name: _order(counts, share) for name, share in QUANTILES.items()}
    return {name: (value / 255).reshape(3, 1, 1) for name, value in found.items()} | {"count": np.array([len(frames)])}


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> Stats:
    """Of several episodes or sets; a field that one of them lacks is left out."""
    known = set.intersection(*(set(part) for part in parts))
    stacked = {name: np.stack([np.asarray(part[name], np.float64) for part in parts]) for name in known}
    counts = stacked["count"].reshape(-1, *([1] * (stacked["mean"].ndim - 1)))
    total = counts.sum()
    mean = (stacked["mean"] * counts).sum(0) / total
    spread = ((stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2) * counts).sum(0) / total
    found = {"min": stacked["min"].min(0), "max": stacked["max"].max(0), "mean": mean, "std": np.sqrt(spread)}
    for name, share in QUANTILES.items():
        if name in known:
            found[name] = stacked[name].min(0) if share <= 0.5 else stacked[name].max(0)
    return found | {"count": np.array([int(stacked["count"].sum())])}


def plain(stats: Mapping[str, Stats]) -> dict[str, Any]:
    """For JSON."""
    return {key: {name: value.tolist() for name, value in one.items()} for key, one in stats.items()}


def of_plain(stats: Mapping[str, Any]) -> dict[str, Stats]:
    """From JSON; what is no statistics of a column is left out."""
    found = {}
    for key, one in stats.items():
        if isinstance(one, Mapping) and {"min", "max", "mean", "std", "count"} <= set(one):
            found[key] = {name: np.atleast_1d(np.asarray(value, np.float64)) for name, value in one.items()}
    return found


def sampled(frames: int) -> np.ndarray:
    """Which frames of an episode are counted of a camera."""
    most = max(min(FEW, frames), min(int(frames**GROWTH), MANY))
    return np.round(np.linspace(0, frames - 1, most)).astype(np.int64)


def _order(counts: np.ndarray, share: float) -> np.ndarray:
    """The quantile of what was counted by level, between its two neighbors in proportion."""
    below = np.cumsum(counts, axis=1)
    at = share * (below[:, -1] - 1)
    low, high = np.floor(at), np.ceil(at)
    first = (below > low[:, None]).argmax(1)
    second = (below > high[:, None]).argmax(1)
    return np.asarray(first + (second - first) * (at - low), np.float64)
