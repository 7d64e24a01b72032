"""Mixtures: several sources, or several tables, interleaved by weights, the same on every machine and at every resume.

    draw      u₀  u₁  u₂  u₃ …        one number a position, from the seed and the epoch alone
    choice    web web code web …      by the weights of the sources that have not ended

Which source gives position p follows from the seed, the epoch and p; so the whole state of a mixture is its position.
What happens when a source ends is a choice:

    each_once         go on with the others: every row exactly once, the weights rule while all last
    first_exhausted   stop there: the weights rule to the end, what the others have left is not seen in this epoch
    all_exhausted     begin the ended one again until every source has ended once: the weights rule, rows come again
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from vertebra.data.read.open import open_source
from vertebra.data.read.rows import Fault, Raw, Row, Source, digest
from vertebra.data.samples.samples import Samples, Vectors
from vertebra.errors import ConfigError, DataError, UnknownNameError

Stop = Literal["each_once", "first_exhausted", "all_exhausted"]
STOPS: tuple[Stop, ...] = ("each_once", "first_exhausted", "all_exhausted")

Weights = Mapping[str, float] | Sequence[float] | None

_DRAWN = 4096
"""Numbers that one seeding gives; any position is then reached by one seeding."""


class _Choice:
    """Which source each position takes, while sources end one after the other."""

    def __init__(self, weights: np.ndarray, stop: Stop) -> None:
        self.weights, self.stop = weights, stop
        self.ended = np.zeros(len(weights), bool)
        self._weigh()

    def _weigh(self) -> None:
        left = self.weights * ~self.ended if self.stop == "each_once" else self.weights
        total = left.sum()
        self.edges = np.cumsum(left) / total if total else None

    def of(self, drawn: np.ndarray) -> np.ndarray:
        assert self.edges is not None
        # A source without weight left has an empty interval; the very last edge may fall short of 1 by rounding.
        last = int(np.flatnonzero(np.diff(self.edges, prepend=0.0))[-1])
        return np.minimum(np.searchsorted(self.edges, drawn, side="right"), last)

    def end(self, source: int) -> bool:
        """A source has ended; whether the whole mixture has."""
        self.ended[source] = True
        if self.stop == "first_exhausted":
            return True
        self._weigh()
        return bool(self.ended.all())


def _draws(seed: int, epoch: int, number: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, number, 5]).random(_DRAWN)


def interleaved(
    sizes: Sequence[int], weights: Sequence[float], *, seed: int, epoch: int, stop: Stop
) -> tuple[np.ndarray, np.ndarray]:
    """(source, how many of its rows came before) of every position, for sources of known sizes."""
    choice = _Choice(np.asarray(weights, float), stop)
    size = np.asarray(sizes)
    taken = np.zeros(len(sizes), np.int64)
    sources: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    drawn, number = _draws(seed, epoch, 0), 0
    while True:
        if not len(drawn):
            number += 1
            drawn = _draws(seed, epoch, number)
        chosen = choice.of(drawn)
        nth = np.zeros(len(chosen), np.int64)
        for source in range(len(sizes)):
            here = chosen == source
            nth[here] = taken[source] + np.arange(int(here.sum()))
        # The first position whose source is found at its end (or, for a repeated one, at the end of its first pass).
        at_end = (nth >= size[chosen]) & ~choice.ended[chosen]
        good = int(at_end.argmax()) if at_end.any() else len(chosen)
        sources.append(chosen[:good])
        numbers.append(nth[:good])
        taken += np.bincount(chosen[:good], minlength=len(sizes))
        drawn = drawn[good:]
        if at_end.any() and choice.end(int(chosen[good])):
            return np.concatenate(sources), np.concatenate(numbers)


class Mixture(Source):
    """Several sources as one: `Mixture({"web": "web/*.jsonl", "code": "code.jsonl"}, weights={"web": 3, "code": 1})`.

    A position counts the units of all sources together. `state_dict` and `load_state_dict` keep the position of
    `rows()` exactly; `shard` gives every `count`-th row, and the shards together are the mixture.
    """

    def __init__(
        self,
        sources: Mapping[str, Any],
        weights: Weights = None,
        *,
        seed: int = 0,
        epoch: int = 0,
        stop: Stop = "each_once",
    ) -> None:
        self.sources = {name: open_source(source) for name, source in sources.items()}
        self.weights = checked_weights(list(self.sources), weights)
        if stop not in STOPS:
            raise UnknownNameError("way to stop", stop, STOPS)
        self.seed, self.epoch, self.stop = seed, epoch, stop
        self.name = "mixture of " + ", ".join(self.sources)
        self.position = 0
        """How many units `rows()` has handed out in this epoch."""

    def at_epoch(self, epoch: int, *, seed: int = 0, shuffle: bool = True) -> Mixture:
        """The same mixture in the order of another epoch; the seed of its draws stays its own."""
        sources = {name: source.at_epoch(epoch, seed=seed, shuffle=shuffle) for name, source in self.sources.items()}
        return Mixture(sources, self.weights, seed=self.seed, epoch=epoch, stop=self.stop)

    def raw(self, start: int = 0) -> Iterator[Raw]:
        sources = list(self.sources.values())
        walks = [source.raw() for source in sources]
        choice = _Choice(np.array(list(self.weights.values())), self.stop)
        position = 0
        while True:
            drawn = _draws(self.seed, self.epoch, position // _DRAWN)
            chosen = choice.of(drawn).tolist()
            for at in range(_DRAWN):
                while (raw := next(walks[chosen[at]], None)) is None:
                    number = chosen[at]
                    if choice.end(number):
                        return
                    if self.stop == "all_exhausted":
                        walks[number] = sources[number].raw()
                        if (raw := next(walks[number], None)) is None:
                            raise DataError(f"{sources[number].name} is empty; it cannot be repeated in a mixture")
                        break
                    chosen[at:] = choice.of(drawn[at:]).tolist()
                if position >= start:
                    yield Raw(position, raw.line, (chosen[at], raw))
                position += 1

    def parse(self, raw: Raw) -> Row | Fault | None:
        number, inner = raw.data
        return list(self.sources.values())[number].parse(inner)

    def source_of(self, raw: Raw) -> str:
        """The name of the source that a unit came from."""
        return list(self.sources)[raw.data[0]]

    def rows(self, start: int | None = None) -> Iterator[Row | Fault]:
        """Rows from the kept position on (or from `start`), counting it up."""
        self.position = self.position if start is None else start
        for raw in self.raw(self.position):
            self.position = raw.number + 1
            row = self.parse(raw)
            if row is not None:
                yield row

    def shard(self, index: int, count: int) -> Iterator[Row | Fault]:
        """Every `count`-th unit from the `index`-th on."""
        if not 0 <= index < count:
            raise ConfigError(f"shard {index} of {count}; expected 0 to {count - 1}")
        for raw in self.raw():
            if raw.number % count == index:
                row = self.parse(raw)
                if row is not None:
                    yield row

    def units(self) -> int | None:
        sizes = [source.units() for source in self.sources.values()]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            return None
        if self.stop == "each_once":
            return sum(known)
        weights = list(self.weights.values())
        return len(interleaved(known, weights, seed=self.seed, epoch=self.epoch, stop=self.stop)[0])

    def fingerprint(self) -> str | None:
        prints = [source.fingerprint() for source in self.sources.values()]
        settings = (list(self.weights.items()), self.seed, self.epoch, self.stop)
        return None if None in prints else digest("mixture", settings, *prints)

    def state_dict(self) -> dict[str, Any]:
        settings = digest(list(self.weights.items()), self.seed, self.stop)
        return {"epoch": self.epoch, "position": self.position, "settings": settings}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("settings") != self.state_dict()["settings"]:
            raise ConfigError(
                "the state was saved by a mixture of other sources, weights, seed or way to stop; the rows would come "
                "in another order. Make the mixture as it was."
            )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])


class TableMixture(Samples):
    """Several tables (or other samples) as one, drawn by weights in every epoch; inside a table the order is shuffled."""

    mixes = True

    def __init__(self, tables: Mapping[str, Samples], weights: Weights = None, *, stop: Stop = "each_once") -> None:
        self.tables = dict(tables)
        self.weights = checked_weights(list(self.tables), weights)
        if stop not in STOPS:
            raise UnknownNameError("way to stop", stop, STOPS)
        empty = [name for name, table in self.tables.items() if not len(table)]
        if empty:
            raise DataError(f"nothing to mix in {', '.join(empty)}: it has no samples")
        self.stop = stop
        self.lengths = np.concatenate([table.lengths for table in self.tables.values()])
        self._firsts = np.concatenate([[0], np.cumsum([len(table) for table in self.tables.values()])])

    def order(self, epoch: int, seed: int, *, shuffle: bool = True) -> np.ndarray:
        sizes = [len(table) for table in self.tables.values()]
        which, nth = interleaved(sizes, list(self.weights.values()), seed=seed, epoch=epoch, stop=self.stop)
        order = np.zeros(len(which), np.int64)
        for number, size in enumerate(sizes):
            here = np.flatnonzero(which == number)
            passes = nth[here] // size
            for again in range(int(passes.max(initial=-1)) + 1):
                at = here[passes == again]
                rng = np.random.default_rng([seed, epoch, number, again])
                within = rng.permutation(size) if shuffle else np.arange(size)
                order[at] = self._firsts[number] + within[nth[at] % size]
        return order

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        table, own = self._place(index)
        return table.vectors(own, epoch)

    def where(self, index: int) -> str:
        table, own = self._place(index)
        return table.where(own)

    def extra(self, index: int, epoch: int = 0) -> Mapping[str, Any]:
        table, own = self._place(index)
        return table.extra(own, epoch)

    def fingerprint(self) -> str:
        return digest(
            "mixture", list(self.weights.items()), self.stop, *[t.fingerprint() for t in self.tables.values()]
        )

    def name_of(self, index: int) -> str:
        """The table that a sample belongs to."""
        return list(self.tables)[int(np.searchsorted(self._firsts, index, side="right")) - 1]

    def _place(self, index: int) -> tuple[Samples, int]:
        name = self.name_of(index)
        return self.tables[name], index - int(self._firsts[list(self.tables).index(name)])


def checked_weights(names: Sequence[str], weights: Weights) -> dict[str, float]:
    """Each source's weight; equal ones where none are given."""
    if not names:
        raise ConfigError("a mixture of no sources")
    if weights is None:
        return dict.fromkeys(names, 1.0)
    if isinstance(weights, Mapping):
        for name in weights:
            if name not in names:
                raise UnknownNameError("source in `weights`", name, names)
        missing = [name for name in names if name not in weights]
        if missing:
            raise ConfigError(f"no weight for {', '.join(missing)}; give one for each source of the mixture")
        given = {name: float(weights[name]) for name in names}
    else:
        if len(weights) != len(names):
            raise ConfigError(
                f"{len(weights)} weights for {len(names)} sources ({', '.join(names)}); give one for each"
            )
        given = {name: float(weight) for name, weight in zip(names, weights, strict=True)}
    if not all(0 < weight < math.inf for weight in given.values()):
        raise ConfigError(
            f"weights must be above 0 and finite; got {given}. Leave a source out instead of weighing it 0."
        )
    return given
