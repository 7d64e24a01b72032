"""Confidences that mean what they say: fitted on answers of held-out pages, measured by the expected calibration error.

    raw confidence ─► Calibration ─► among answers of 0.9, nine of ten are right

`temperature` has two numbers (a scale and a shift of the log-odds) and needs few answers; `isotonic` is a staircase that
never falls, and needs some hundreds. It knows no models.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from vertebra.errors import ConfigError, DataError, UnknownNameError
from vertebra.reading import json_of

Kind = Literal["temperature", "isotonic"]
FILE = "confidence"
"""Its place in a model's record."""
_EDGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A raw confidence becomes a calibrated one: `calibration(0.97)`."""

    kind: Kind
    scale: float = 1.0
    shift: float = 0.0
    steps: tuple[tuple[float, float], ...] = ()
    """Of a staircase: (from which raw confidence on, the calibrated one)."""
    answers: int = 0
    """On how many answers it was fitted."""

    @classmethod
    def fit(cls, raw: Sequence[float], right: Sequence[bool], kind: Kind = "temperature") -> Calibration:
        """The best fit to answers of which it is known whether they are right."""
        if kind not in ("temperature", "isotonic"):
            raise UnknownNameError("calibration", kind, ("temperature", "isotonic"))
        x, y = _checked(raw, right)
        if kind == "isotonic":
            return cls(kind=kind, steps=_staircase(x, y), answers=len(x))
        scale, shift = _two_numbers(x, y)
        return cls(kind=kind, scale=scale, shift=shift, answers=len(x))

    def __call__(self, raw: float) -> float:
        if self.kind == "isotonic":
            at = bisect_right([start for start, _ in self.steps], raw) - 1
            return self.steps[max(at, 0)][1]
        return float(_sigmoid(self.scale * _log_odds(np.array(raw)) + self.shift))

    def to_json(self) -> dict[str, Any]:
        """Plain data, for a file or a model's record."""
        return {"kind": self.kind, "scale": self.scale, "shift": self.shift, "steps": [list(one) for one in self.steps],
                "answers": self.answers}  # fmt: skip

    def write(self, path: str | Path) -> Path:
        """The same as a file."""
        Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def of(cls, given: Mapping[str, Any], where: str = "a calibration") -> Calibration:
        """From plain data."""
        try:
            steps = tuple((float(start), float(value)) for start, value in given.get("steps", ()))
            made = cls(
                kind=given["kind"], scale=float(given.get("scale", 1.0)), shift=float(given.get("shift", 0.0)),
                steps=steps, answers=int(given.get("answers", 0)),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where} is damaged ({type(error).__name__}: {error}); fit it again") from error
        numbers = [made.scale, made.shift, *(number for step in steps for number in step)]
        if made.kind not in ("temperature", "isotonic") or (made.kind == "isotonic" and not steps):
            raise DataError(f"{where} is of kind {made.kind!r:.40} with {len(steps)} steps; fit it again")
        if not all(map(math.isfinite, numbers)) or list(steps) != sorted(steps):
            raise DataError(f"{where} holds numbers that are none, or steps that fall; fit it again")
        return made


def calibration_of(given: Any, record: Mapping[str, Any]) -> Calibration | None:
    """A calibration as it is, from its file, or from a model's record; None: raw confidences."""
    if isinstance(given, Calibration):
        return given
    if given is None:
        return Calibration.of(record[FILE], f"the record `{FILE}`") if isinstance(record.get(FILE), Mapping) else None
    if not isinstance(given, str | Path):
        raise ConfigError(f"calibration is a {type(given).__name__}; expected a Calibration or its file")
    try:
        return Calibration.of(json_of(Path(given).read_bytes()), f"`{given}`")
    except OSError as error:
        raise DataError(f"the calibration `{given}` cannot be read: {error.strerror or error}") from error
    except (ValueError, AttributeError) as error:
        raise error if isinstance(error, DataError) else DataError(f"`{given}` is no calibration: {error}") from error


class Bin(NamedTuple):
    """Answers whose confidences lie between two numbers."""

    low: float
    high: float
    answers: int
    confidence: float
    """Their mean."""
    right: float
    """The share of right ones."""


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> list[Bin]:
    """The bins of equal width that hold any answer."""
    x, y = _checked(confidences, right)
    which = np.minimum((x * bins).astype(int), bins - 1)
    return [
        Bin(n / bins, (n + 1) / bins, int((which == n).sum()), float(x[which == n].mean()), float(y[which == n].mean()))
        for n in sorted(set(which.tolist()))
    ]


def ece(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error: the gap between mean confidence and share of right ones, over bins of equal width."""
    found = reliability(confidences, right, bins)
    return sum(abs(one.confidence - one.right) * one.answers for one in found) / sum(one.answers for one in found)


def _checked(raw: Sequence[float], right: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(raw, np.float64), np.asarray(right, np.float64)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise DataError(f"{x.size} confidences for {y.size} answers; expected as many, and at least one")
    if not np.isfinite(x).all() or x.min() < 0 or x.max() > 1:
        raise DataError("confidences lie between 0 and 1; found others")
    return x, y


def _log_odds(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, _EDGE, 1 - _EDGE)
    return np.log(x) - np.log1p(-x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def _two_numbers(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Newton's method on the log-likelihood, with a little ridge towards (1, 0) so that few answers do no harm."""
    odds, theta, ridge = _log_odds(x), np.array([1.0, 0.0]), 1e-2
    design = np.stack([odds, np.ones_like(odds)], 1)
    for _ in range(100):
        p = _sigmoid(design @ theta)
        gradient = design.T @ (p - y) + ridge * (theta - [1.0, 0.0])
        hessian = (design * (p * (1 - p))[:, None]).T @ design + ridge * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        theta = theta - step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        theta[0] = max(theta[0], 1e-3)  # a surer answer is never less likely to be right
        if float(np.abs(step).max()) < 1e-9:
            break
    return float(theta[0]), float(theta[1])


def _staircase(x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Pool adjacent violators: neighbors are joined until the shares never fall."""
    starts, which = np.unique(x, return_inverse=True)  # equal confidences are one answer to begin with
    sums, counts = np.bincount(which, weights=y), np.bincount(which)
    blocks: list[list[float]] = []  # from where on, sum, count
    for start, total, count in zip(starts.tolist(), sums.tolist(), counts.tolist(), strict=True):
        blocks.append([start, total, count])
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            _, total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0], blocks[-1][1] + total, blocks[-1][2] + count]
    return tuple((float(start), float(total / count)) for start, total, count in blocks)
