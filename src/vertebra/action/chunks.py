"""Chunks of actions over time: cut from episodes, carried out from the first on, blended, and joined to what goes on.

    training     a₀ a₁ a₂ | a₃ a₄ end          windows: [a₃ a₄ a₄], padded with the last, which `pad` marks
    carrying out [a₀ a₁ a₂ a₃]  k = 2          the *first* k, then a new chunk
    ensembling   several chunks speak of one moment; the older the likelier right or the staler: exp(−decay · age)
    real time    while a chunk is carried out the next is computed: its first d steps are already decided

It knows numbers and steps, and no models. The guided and the trained form of real-time chunking belong to the heads that
denoise; here are their weights alone.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Literal

import numpy as np

from vertebra.action.numbers import like, require_numbers
from vertebra.errors import ConfigError, DataError, UnknownNameError

Schedule = Literal["exp", "linear", "ones", "zeros"]
SCHEDULES: tuple[Schedule, ...] = ("exp", "linear", "ones", "zeros")


def windows(actions: Any, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """(chunks [T, chunk, dims], pad [T, chunk]) of an episode's actions [T, dims], one beginning at each step.

    Beyond the end the last action stands, and `pad` is True there: a loss leaves it out.
    """
    _whole("chunk", chunk, 1)
    steps = require_numbers(actions, "actions")
    if steps.ndim != 2 or not len(steps):
        raise DataError(f"an episode's actions have the shape {steps.shape}; expected [steps, dims], at least one step")
    at = np.arange(len(steps))[:, None] + np.arange(chunk)
    return like(steps[np.minimum(at, len(steps) - 1)], actions), at >= len(steps)


def first(chunk: Any, count: int | None) -> np.ndarray:
    """The first `count` actions of a chunk [..., chunk, dims]; None: all of them."""
    array = np.asarray(chunk)
    if count is None:
        return array.copy()
    _whole("count", count, 1)
    if count > array.shape[-2]:
        raise DataError(
            f"{count} actions of a chunk of {array.shape[-2]} cannot be carried out; give at most that many"
        )
    return array[..., :count, :].copy()


class Ensemble:
    """Temporal ensembling: one action a step, the mean of what all chunks so far say of that step.

    `decay`: a chunk of age n counts exp(−decay · n), with the oldest first as in ACT (`oldest_first`), or the newest.
    Published reports find lower success with it in simulation; it smooths.
    """

    def __init__(self, *, decay: float = 0.01, oldest_first: bool = True) -> None:
        if not math.isfinite(decay):
            raise ConfigError(f"decay is {decay}; expected a finite number (0: all count the same)")
        self.decay, self.oldest_first = decay, oldest_first
        self._chunks: deque[np.ndarray] = deque()

    def add(self, chunk: Any) -> np.ndarray:
        """Take the chunk [chunk, dims] that was predicted now, and give the action [dims] of now."""
        new = require_numbers(chunk, "a chunk")
        if new.ndim != 2 or not len(new) or (self._chunks and new.shape[1] != self._chunks[-1].shape[1]):
            raise DataError(f"a chunk has the shape {new.shape}; expected [chunk, dims], as the ones before it")
        self._chunks.append(new)
        while len(self._chunks[0]) < len(self._chunks):  # the oldest says nothing of now
            self._chunks.popleft()
        count = len(self._chunks)
        predicted = np.stack([old[count - 1 - number] for number, old in enumerate(self._chunks)])
        order = np.arange(count) if self.oldest_first else np.arange(count)[::-1]
        weights = np.exp(-self.decay * (order - order.min()))
        return like((weights[:, None] * predicted).sum(0) / weights.sum(), chunk)

    def reset(self) -> None:
        """Forget all chunks: a new episode begins."""
        self._chunks.clear()


def prefix_weights(chunk: int, delay: int, overlap: int, schedule: Schedule = "exp") -> np.ndarray:
    """[chunk] how firmly each step is bound to the chunk that is being carried out: 1 decided, 0 free.

    The first `delay` steps run while the new chunk is computed; the old chunk says something of the first `overlap`.
    In between the weight falls: `linear`, `exp` (Black et al., 2025), not at all (`ones`), or at once (`zeros`).
    """
    if schedule not in SCHEDULES:
        raise UnknownNameError("schedule", schedule, SCHEDULES)
    _whole("chunk", chunk, 1)
    if not 0 <= delay <= overlap <= chunk:
        raise ConfigError(f"delay={delay}, overlap={overlap}, chunk={chunk}; expected 0 ≤ delay ≤ overlap ≤ chunk")
    steps = np.arange(chunk, dtype=np.float64)
    share = (overlap - steps) / (overlap - delay + 1)  # linear from 1 before `delay` to 0 at `overlap`
    falling = {
        "linear": share,
        "exp": share * np.expm1(share) / math.expm1(1),
        "ones": np.ones(chunk),
        "zeros": np.zeros(chunk),
    }[schedule]
    return np.where(steps < delay, 1.0, np.where(steps < overlap, falling, 0.0))


def guidance_weight(time: float, *, most: float = 5.0) -> float:
    """How strongly a denoising step at `time` (0: noise, 1: actions) is pulled to the decided prefix, at most `most`."""
    if not 0 <= time <= 1:
        raise ConfigError(f"time is {time}; expected 0 (noise) to 1 (actions)")
    if time == 0:
        return most
    left = 1 - time
    # (1 − t) / (t r²) with r² = (1 − t)² / (t² + (1 − t)²)
    return most if left == 0 else min(most, (time**2 + left**2) / (time * left))


def remaining(chunk: Any, done: int) -> np.ndarray:
    """What a chunk [chunk, dims] still says after `done` of its steps: the prefix of the next one."""
    array = np.asarray(chunk)
    if not 0 <= done <= len(array):
        raise DataError(f"{done} steps of a chunk of {len(array)} are done; expected 0 to {len(array)}")
    return array[done:].copy()


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name} is {value!r}; expected a whole number from {least} on")
