"""Numbers ⇄ token ids by arithmetic: a border search one way, a table the other. No text comes between.

    uniform, 4 bins      borders        −0.5    0    0.5          encode: how many borders are at or below the number
                      ──────┼─────┼─────┼──────                   decode: the value of the id's bin
                     −1   −.75  −.25  .25  .75   1   values

    openvla      256 edges linspace(−1, 1, 256); ids count down from the last before padding; the last bin has no
                 width, and says what its neighbor says: both ends decode to ±0.99608
    uniform      equal bins over −1…1; with `ends="exact"` the values themselves are equally spaced, −1 and 1 among them
    quantile     as many numbers of the data in each bin, per dimension

Numbers are in −1…1 (see `normalize`). It knows ids, and neither tokenizers nor models.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vertebra.action.numbers import require_dims, require_numbers
from vertebra.errors import ConfigError, DataError, UnknownNameError

Scheme = Literal["openvla", "uniform", "quantile"]
SCHEMES: tuple[Scheme, ...] = ("openvla", "uniform", "quantile")
Ends = Literal["centers", "exact"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bins:
    """Bins and the id of each; make one with `openvla_bins`, `uniform_bins`, `quantile_bins` or `Bins.of`."""

    ids: np.ndarray
    """[count]: the id of each bin, from the lowest number to the highest."""
    borders: np.ndarray
    """[1 or dims, count − 1]: where one bin ends and the next begins; a border belongs to the bin above it."""
    values: np.ndarray
    """[1 or dims, count]: the number that each bin stands for."""
    settings: Mapping[str, Any]
    """What `Bins.of` needs to make it again, as plain data."""

    def __post_init__(self) -> None:
        bins = np.full(int(self.ids.max()) + 1, -1, np.int64)
        bins[self.ids] = np.arange(len(self.ids))
        object.__setattr__(self, "_bin_of", bins)
        for array in (self.ids, self.borders, self.values):
            array.setflags(write=False)  # they are shared by every call

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dims(self) -> int | None:
        """Dimensions that it was made for; None: the same bins for every one."""
        return len(self.values) if len(self.values) > 1 else None

    @property
    def allowed(self) -> tuple[int, ...]:
        """Every id of an action, ascending."""
        return tuple(sorted(self.ids.tolist()))

    def encode(self, actions: Any) -> np.ndarray:
        """Ids [..., dims] of numbers [..., dims]; those beyond −1…1 count as its ends, and NaN is refused."""
        numbers = require_numbers(actions, "actions")
        require_dims(numbers, self.dims, "actions")
        numbers = np.clip(numbers, -1.0, 1.0)
        if self.dims is None:
            return self.ids[np.searchsorted(self.borders[0], numbers, side="right")]
        bins = [np.searchsorted(row, numbers[..., at], side="right") for at, row in enumerate(self.borders)]
        return self.ids[np.stack(bins, axis=-1)]

    def decode(self, ids: Any) -> np.ndarray:
        """Numbers [..., dims], in 64 bits, of ids [..., dims]. An id of no bin is an error, never a number."""
        bins = self.bins_of(ids)
        require_dims(bins, self.dims, "ids")
        if self.dims is None:
            return self.values[0][bins]
        return np.stack([row[bins[..., at]] for at, row in enumerate(self.values)], axis=-1)

    def bins_of(self, ids: Any) -> np.ndarray:
        """The number of each id's bin, from 0."""
        given = np.asarray(ids)
        if given.dtype.kind not in "iu" and given.size:
            raise DataError(f"action ids are {given.dtype}; expected whole numbers")
        known: np.ndarray = self._bin_of  # type: ignore[attr-defined]
        inside = (given >= 0) & (given < len(known))
        bins = np.where(inside, known[np.where(inside, given, 0).astype(np.int64)], -1)
        if (bins < 0).any():
            stray = np.unique(given[bins < 0])[:8].tolist()
            raise DataError(
                f"{stray} are ids of no action bin; those are {len(self)} ids from {self.ids.min()} to {self.ids.max()}. "
                "Decode under the constraint `bins.allowed`"
            )
        return bins

    def expected(self, probabilities: Any) -> np.ndarray:
        """[..., dims]: the mean of the values under probabilities [..., dims, count], in the order of `ids`."""
        weights = np.asarray(probabilities, np.float64)
        if weights.shape[-1:] != (len(self),):
            raise DataError(f"probabilities have the shape {weights.shape}; expected [..., dims, {len(self)}]")
        return (weights * self.values).sum(-1) / weights.sum(-1)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `ActionRecord.bins`."""
        return dict(self.settings)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Bins:
        """Bins from what `to_json` gave."""
        record = dict(record)
        scheme = record.pop("scheme", None)
        if not isinstance(scheme, str) or scheme not in _MAKERS:
            raise UnknownNameError("scheme of bins", scheme, SCHEMES)
        make, needs, takes = _MAKERS[scheme]
        unknown = [name for name in record if name not in (*needs, *takes)]
        if unknown:
            raise UnknownNameError(f"setting of `{scheme}` bins", unknown[0], (*needs, *takes))
        missing = [name for name in needs if name not in record]
        if missing:
            raise ConfigError(f"`{scheme}` bins lack {', '.join(missing)}")
        return make(**record)


def openvla_bins(vocabulary: int, *, count: int = 256, special: Collection[int] = ()) -> Bins:
    """OpenVLA's bins: the last `count` ids before `vocabulary`, which counts no padding; −1 has the highest id.

    `special`: ids that must not be among them.
    """
    whole = all(isinstance(one, int | np.integer) and not isinstance(one, bool) for one in (vocabulary, count))
    if not whole or not 2 <= count <= vocabulary or vocabulary >= 2**31:
        raise ConfigError(
            f"{count!r:.20} bins in a vocabulary of {vocabulary!r:.20}; expected 2 or more, and no more than it has"
        )
    edges = np.linspace(-1, 1, count)
    centers = (edges[:-1] + edges[1:]) / 2.0
    return Bins(
        ids=_checked_ids(range(vocabulary - 1, vocabulary - 1 - count, -1), special),
        borders=edges[None, 1:].copy(),  # the number 1 alone lies behind the last one
        values=np.append(centers, centers[-1])[None],
        settings={"scheme": "openvla", "vocabulary": int(vocabulary), "count": int(count)},
    )


def uniform_bins(ids: Sequence[int], *, ends: Ends = "centers", special: Collection[int] = ()) -> Bins:
    """As many equal bins over −1…1 as there are ids; `ends="exact"` spaces the values, so that ±1 are among them."""
    if not isinstance(ends, str) or ends not in ("centers", "exact"):
        raise UnknownNameError("value of `ends`", ends, ("centers", "exact"))
    checked = _checked_ids(ids, special)
    count = len(checked)
    if ends == "exact":
        values = np.linspace(-1, 1, count)
        borders = (values[:-1] + values[1:]) / 2
    else:
        edges = np.linspace(-1, 1, count + 1)
        values, borders = (edges[:-1] + edges[1:]) / 2, edges[1:-1]
    settings = {"scheme": "uniform", "ids": checked.tolist(), "ends": ends}
    return Bins(ids=checked, borders=borders[None].copy(), values=values[None], settings=settings)


def quantile_bins(ids: Sequence[int], edges: Any, *, special: Collection[int] = ()) -> Bins:
    """Bins between `edges` [dims, ids + 1], ascending in −1…1; each stands for its middle. `quantile_edges` makes them."""
    checked = _checked_ids(ids, special)
    table = require_numbers(edges, "edges of bins")
    if table.ndim != 2 or table.shape[1] != len(checked) + 1:
        raise ConfigError(
            f"edges have the shape {table.shape}; expected [dims, {len(checked) + 1}] for {len(checked)} ids"
        )
    if (np.diff(table, axis=1) < 0).any() or np.abs(table).max() > 1:
        raise ConfigError("edges of bins must ascend in every dimension, and lie in −1…1")
    return Bins(
        ids=checked,
        borders=table[:, 1:-1].copy(),
        values=(table[:, :-1] + table[:, 1:]) / 2,
        settings={"scheme": "quantile", "ids": checked.tolist(), "edges": table.tolist()},
    )


def quantile_edges(actions: Any, count: int) -> np.ndarray:
    """[dims, count + 1] edges between which equally many of the normalised `actions` [N, dims] lie, from −1 to 1."""
    numbers = np.clip(require_numbers(actions, "actions"), -1.0, 1.0)
    if numbers.ndim != 2 or not len(numbers):
        raise DataError(f"actions have the shape {numbers.shape}; expected [samples, dims] with at least one sample")
    edges = np.quantile(numbers, np.linspace(0, 1, count + 1), axis=0).T.copy()
    edges[:, 0], edges[:, -1] = -1.0, 1.0
    return edges


def _checked_ids(ids: Sequence[int], special: Collection[int]) -> np.ndarray:
    try:
        found = np.asarray(ids)
    except ValueError:  # lists of several lengths in each other
        found = np.zeros((0, 0))
    if found.ndim != 1 or len(found) < 2 or found.dtype.kind not in "iu" or int(found.min()) < 0:
        raise ConfigError(f"bins have the ids {ids!r:.80}; expected at least two whole numbers from 0 on")
    if len(np.unique(found)) < len(found):
        raise ConfigError("two bins have the same id; each bin needs one of its own")
    taken = sorted(set(found.tolist()) & {int(one) for one in special})
    if taken:
        raise ConfigError(
            f"the ids {taken[:8]} are special tokens (an end, padding), and cannot stand for actions; choose others, or "
            "add tokens (`action_tokens`)"
        )
    return found.astype(np.int64)


_MAKERS: dict[str, tuple[Any, tuple[str, ...], tuple[str, ...]]] = {
    "openvla": (openvla_bins, ("vocabulary",), ("count",)),
    "uniform": (uniform_bins, ("ids",), ("ends",)),
    "quantile": (quantile_bins, ("ids", "edges"), ()),
}
