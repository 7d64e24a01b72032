"""Statistics of actions and of what a robot reports of itself, per dimension, as OpenVLA writes them.

    {"bridge_orig": {"action":  {"mask": …, "mean": …, "std": …, "min": …, "max": …, "q01": …, "q99": …},
                     "proprio": {the same, without a mask}, "num_transitions": 1000, "num_trajectories": 10}}

`Moments` are those of one vector, `DatasetStatistics` those of a data set; how they are counted in one pass is
`counting.py`'s. LeRobot's aggregate, which takes the outermost quantiles of all episodes, is `envelope`: wider than the
quantiles of the data, and never mixed up with them. It knows no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vertebra.action.numbers import require_numbers
from vertebra.errors import DataError, UnknownNameError

NUMBERS = ("mean", "std", "min", "max", "q01", "q99")
"""What is known of each dimension."""
Quantiles = Literal["exact", "envelope", "unknown"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """What is known of one vector: arrays of one length, in 64 bits. A field that nobody counted is None."""

    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    min: np.ndarray | None = None
    max: np.ndarray | None = None
    q01: np.ndarray | None = None
    q99: np.ndarray | None = None
    mask: np.ndarray | None = None
    """Which dimensions are normalised; None: all."""
    count: int | None = None

    @property
    def dims(self) -> int:
        return next(len(value) for name in NUMBERS if (value := getattr(self, name)) is not None)

    @property
    def masked(self) -> np.ndarray:
        """[dims] of bool."""
        return np.ones(self.dims, bool) if self.mask is None else self.mask

    @property
    def constant(self) -> np.ndarray:
        """[dims]: where the smallest and the largest value are one."""
        if self.min is None or self.max is None:
            return np.zeros(self.dims, bool)
        return np.asarray(self.min == self.max)

    def need(self, name: str, why: str) -> np.ndarray:
        """A field that must be there."""
        value: np.ndarray | None = getattr(self, name)
        if value is None:
            raise DataError(f"{why} needs `{name}`, which these statistics do not have; count them anew from the data")
        return value

    def to_json(self) -> dict[str, Any]:
        known = {name: value.tolist() for name in NUMBERS if (value := getattr(self, name)) is not None}
        if self.mask is not None:
            known["mask"] = self.mask.tolist()
        return known | ({} if self.count is None else {"count": self.count})

    @classmethod
    def of(cls, given: Mapping[str, Any], where: str) -> Moments:
        """From plain data; all faults come in one error. Fields of other programs (`q50`) are not read."""
        if not isinstance(given, Mapping):
            raise DataError(
                f"{where} is a {type(given).__name__}; expected {', '.join(NUMBERS)}, each a list of numbers"
            )
        faults: list[str] = []
        found = {name: _numbers(given[name], f"`{name}`", faults) for name in NUMBERS if given.get(name) is not None}
        if not found:
            raise DataError(f"{where} has none of {', '.join(NUMBERS)}; is it the right part of the file?")
        dims = {len(value) for value in found.values() if value is not None}
        mask = _mask(given.get("mask"), faults)
        dims |= set() if mask is None else {len(mask)}
        if len(dims) > 1:
            faults.append(f"its lists have different lengths: {sorted(dims)}")
        elif not faults:
            faults += _out_of_order(found)  # type: ignore[arg-type]
        if faults:
            raise DataError(f"{where} is damaged: {'; '.join(faults)}")
        return cls(**found, mask=mask, count=_count(given.get("count")))


@dataclass(frozen=True, kw_only=True, eq=False)
class DatasetStatistics:
    """What is known of one data set."""

    action: Moments
    proprio: Moments | None = None
    num_transitions: int | None = None
    num_trajectories: int | None = None
    quantiles: Quantiles = "unknown"
    """`exact`: of all the data; `envelope`: the outermost of all episodes; `unknown`: whoever counted did not note it."""

    def to_json(self) -> dict[str, Any]:
        parts = {"action": self.action.to_json()}
        if self.proprio is not None:
            parts["proprio"] = self.proprio.to_json()
        counts = {name: getattr(self, name) for name in ("num_transitions", "num_trajectories")}
        known: dict[str, Any] = {**parts, **{name: value for name, value in counts.items() if value is not None}}
        return known if self.quantiles == "unknown" else known | {"quantiles": self.quantiles}

    @classmethod
    def of(cls, given: Mapping[str, Any], key: str) -> DatasetStatistics:
        """From plain data, as a model's record or OpenVLA's `norm_stats[key]` holds it."""
        where = f"the statistics `{key}`"
        if not isinstance(given, Mapping) or "action" not in given:
            has = f"the entries {sorted(map(str, given))[:6]}" if isinstance(given, Mapping) else f"{given!r:.40}"
            raise DataError(f"{where} have no `action`, but {has}; expected those of one data set")
        proprio = None if given.get("proprio") is None else Moments.of(given["proprio"], f"{where}, `proprio`")
        if proprio is not None and _is_absent(proprio):
            proprio = None
        quantiles = given.get("quantiles", "unknown")
        return cls(
            action=Moments.of(given["action"], f"{where}, `action`"),
            proprio=proprio,
            num_transitions=_count(given.get("num_transitions")),
            num_trajectories=_count(given.get("num_trajectories")),
            quantiles=quantiles if quantiles in ("exact", "envelope") else "unknown",
        )


def lookup(statistics: Mapping[str, Any], key: str | None) -> tuple[str, DatasetStatistics]:
    """(key, statistics): those of `unnorm_key`, or the only ones there are."""
    if not statistics:
        raise DataError(
            "this model has no statistics, so nobody can bring its actions to the robot's units; attach them: vertebra "
            "statistics FOLDER --from dataset_statistics.json"
        )
    if key is None:
        if len(statistics) > 1:
            raise DataError(
                f"this model has statistics of {len(statistics)} data sets; name one with `unnorm_key`: "
                f"{', '.join(sorted(statistics))}"
            )
        key = next(iter(statistics))
    if key not in statistics:
        raise UnknownNameError("unnorm_key", key, statistics, hint=_all(statistics))
    return key, DatasetStatistics.of(statistics[key], key)


def envelope(parts: Sequence[DatasetStatistics]) -> DatasetStatistics:
    """Of several data sets or episodes, as LeRobot joins them: pooled mean and std, the outermost quantiles.

    Mean, std, min, max are those of all the data; q01 and q99 are not, and lie further out. Where the data can still
    be read, count anew, or keep the counters and `merge` them: that is exact.
    """
    if not parts:
        raise DataError("an envelope needs the statistics of at least one data set")
    proprio = [part.proprio for part in parts if part.proprio is not None]
    return DatasetStatistics(
        action=_joined([part.action for part in parts], "action"),
        proprio=_joined(proprio, "proprio") if len(proprio) == len(parts) else None,
        num_transitions=_sum([part.num_transitions for part in parts]),
        num_trajectories=_sum([part.num_trajectories for part in parts]),
        quantiles="envelope",
    )


def _joined(parts: Sequence[Moments], what: str) -> Moments:
    if len({part.dims for part in parts}) > 1:
        raise DataError(
            f"`{what}` has {sorted({part.dims for part in parts})} dimensions; one robot's are to be joined"
        )
    if any(part.count is None for part in parts):
        raise DataError(f"joining `{what}` needs the `count` of every part: how many rows each mean is about")
    weight = np.array([part.count for part in parts], np.float64)[:, None]
    weight /= weight.sum()
    means = np.stack([part.need("mean", "joining") for part in parts])
    mean = (weight * means).sum(0)
    spread = np.stack([part.need("std", "joining") for part in parts]) ** 2 + (means - mean) ** 2
    outer = dict.fromkeys(("min", "q01"), np.min) | dict.fromkeys(("max", "q99"), np.max)
    return Moments(
        mean=mean,
        std=np.sqrt((weight * spread).sum(0)),
        **{name: take([part.need(name, "joining") for part in parts], axis=0) for name, take in outer.items()},
        mask=parts[0].mask,
        count=_sum([part.count for part in parts]),
    )


def _sum(counts: Sequence[int | None]) -> int | None:
    return None if any(one is None for one in counts) else sum(one for one in counts if one is not None)


def _all(names: Mapping[str, Any]) -> str:
    return "" if len(names) <= 12 else f"Known: {', '.join(sorted(names))}."


def _numbers(given: Any, what: str, faults: list[str]) -> np.ndarray | None:
    try:
        numbers = np.atleast_1d(require_numbers(given, what))
    except DataError as error:
        faults.append(str(error))
        return None
    if numbers.ndim != 1:
        faults.append(f"{what} has the shape {numbers.shape}; expected one list of numbers")
        return None
    return numbers


def _mask(given: Any, faults: list[str]) -> np.ndarray | None:
    if given is None:
        return None
    try:
        mask = np.asarray(given)
    except ValueError:  # lists of several lengths in each other
        mask = np.zeros(0)
    if mask.dtype != bool or mask.ndim != 1:
        faults.append(f"`mask` is {given!r:.60}; expected a list of true and false")
        return None
    return mask


def _out_of_order(found: Mapping[str, np.ndarray]) -> list[str]:
    faults = []
    for low, high in (("min", "max"), ("q01", "q99"), ("min", "q01"), ("q99", "max")):
        # the quantile of numbers in 32 bits may lie a rounding beyond their extremes
        room = 1e-6 * (1 + np.abs(found[low])) if low in found else 0
        if low in found and high in found and (found[low] > found[high] + room).any():
            faults.append(f"`{low}` lies above `{high}` in dimension {int(np.argmax(found[low] - found[high]))}")
    if "std" in found and (found["std"] < 0).any():
        faults.append("`std` is negative")
    return faults


def _count(given: Any) -> int | None:
    """A count as it is written: a number, or LeRobot's list of one."""
    if isinstance(given, list | tuple) and len(given) == 1:
        given = given[0]
    whole = isinstance(given, int | float) and not isinstance(given, bool) and given >= 0 and float(given).is_integer()
    return int(given) if whole else None


def _is_absent(moments: Moments) -> bool:
    """OpenVLA writes zeros where a data set has no proprio."""
    return all(not getattr(moments, name).any() for name in NUMBERS if getattr(moments, name) is not None)
