"""Sources made of sources: several in a row, and the parts of a split by fraction or by file.

A split is a function of its seed and of the numbers of the units alone: it is the same on every machine, and its parts
together are the source, each unit once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from vertebra.data.read.rows import Fault, Raw, Row, Source, digest
from vertebra.errors import ConfigError, DataError, UnknownNameError

By = Literal["row", "file"]
BY: tuple[By, ...] = ("row", "file")


class Chain(Source):
    """Several sources, one after the other, as one."""

    def __init__(self, sources: Sequence[Source], name: str) -> None:
        self.sources, self.name = list(sources), name
        self._sizes: dict[int, int] = {}  # sizes found by walking a source to its end

    def raw(self, start: int = 0) -> Iterator[Raw]:
        index = 0
        for number, source in enumerate(self.sources):
            known = self._sizes.get(number)
            if known is not None and index + known <= start:
                index += known
                continue
            first = index
            # A source of known size can be entered in its middle; an unknown one is walked, which tells its size.
            entry = start - index if known is not None and start > index else 0
            index += entry
            for raw in source.raw(entry):
                if index >= start:
                    yield Raw(index, raw.line, (number, raw))
                index += 1
            self._sizes[number] = index - first

    def parse(self, raw: Raw) -> Row | Fault | None:
        number, inner = raw.data
        return self.sources[number].parse(inner)

    def units(self) -> int | None:
        sizes = [source.units() for source in self.sources]
        self._sizes = {number: size for number, size in enumerate(sizes) if size is not None}
        return None if len(self._sizes) < len(sizes) else sum(self._sizes.values())

    def fingerprint(self) -> str | None:
        prints = [source.fingerprint() for source in self.sources]
        return None if None in prints else digest("chain", *prints)

    def parts(self) -> list[Source]:
        return [part for source in self.sources for part in source.parts()]

    def label_names(self) -> dict[str, list[str]]:
        return {column: names for source in reversed(self.sources) for column, names in source.label_names().items()}

    def at_epoch(self, epoch: int, *, seed: int = 0, shuffle: bool = True) -> Chain:
        """The same sources in another order."""
        if not shuffle:
            return self
        order = np.random.default_rng([seed, epoch, 17]).permutation(len(self.sources))
        sources = [self.sources[i].at_epoch(epoch, seed=seed) for i in order]
        made = Chain(sources, self.name)
        made._sizes = {new: self._sizes[int(old)] for new, old in enumerate(order) if int(old) in self._sizes}
        return made


class FirstUnits(Source):
    """The first units of a source; no more of it is read."""

    def __init__(self, source: Source, size: int) -> None:
        self.source, self.size, self.name = source, size, source.name

    def raw(self, start: int = 0) -> Iterator[Raw]:
        yield from islice(self.source.raw(start), max(0, self.size - start))

    def parse(self, raw: Raw) -> Row | Fault | None:
        return self.source.parse(raw)

    def units(self) -> int | None:
        known = self.source.units()
        return None if known is None else min(known, self.size)

    def fingerprint(self) -> str | None:
        whole = self.source.fingerprint()
        return None if whole is None else digest("head", self.size, whole)

    def at_epoch(self, epoch: int, *, seed: int = 0, shuffle: bool = True) -> Source:
        return FirstUnits(self.source.at_epoch(epoch, seed=seed, shuffle=shuffle), self.size)

    def label_names(self) -> dict[str, list[str]]:
        return self.source.label_names()


class Subset(Source):
    """Those units of a source that `member` picks by their number."""

    def __init__(
        self, source: Source, member: Callable[[int], bool], name: str, *, key: str, size: int | None = None
    ) -> None:
        self.source, self.member, self.name = source, member, name
        self._key, self._size = key, size

    def raw(self, start: int = 0) -> Iterator[Raw]:
        index = 0
        for raw in self.source.raw():
            if self.member(raw.number):
                if index >= start:
                    yield Raw(index, raw.line, raw)
                index += 1

    def parse(self, raw: Raw) -> Row | Fault | None:
        return self.source.parse(raw.data)

    def units(self) -> int | None:
        return self._size

    def fingerprint(self) -> str | None:
        whole = self.source.fingerprint()
        return None if whole is None else digest("subset", self._key, whole)

    def label_names(self) -> dict[str, list[str]]:
        return self.source.label_names()


def split(source: Source, fractions: Mapping[str, float], *, seed: int = 0, by: By = "row") -> dict[str, Source]:
    """Named parts of a source: `split(source, {"train": 0.9, "valid": 0.1})`.

    Parts are disjoint. Fractions that add up to 1 take everything; less leaves the rest out. Where the number of rows
    is known the sizes are exact; in a stream each row falls to a part by a hash of its number.
    """
    if by not in BY:
        raise UnknownNameError("way to split", by, BY)
    total = math.fsum(fractions.values())
    if not fractions or min(fractions.values()) <= 0 or total > 1 + 1e-9:
        raise ConfigError(f"fractions must be above 0 and add up to at most 1; got {dict(fractions)}, in all {total:g}")
    return _by_file(source, fractions, seed) if by == "file" else _by_row(source, fractions, seed)


def _by_file(source: Source, fractions: Mapping[str, float], seed: int) -> dict[str, Source]:
    files = source.parts()
    if len(files) < len(fractions):
        raise DataError(f'{source.name} has {len(files)} files for {len(fractions)} parts; split by="row" instead')
    order = np.random.default_rng([seed, len(files)]).permutation(len(files))
    bounds = _bounds(len(files), fractions)
    return {
        name: Chain([files[i] for i in sorted(order[start:stop].tolist())], f"{source.name}[{name}]")
        for name, (start, stop) in bounds.items()
    }


def _by_row(source: Source, fractions: Mapping[str, float], seed: int) -> dict[str, Source]:
    units = source.units()
    parts: dict[str, Source] = {}
    low = 0.0
    bounds = {} if units is None else _bounds(units, fractions)
    order = None if units is None else np.random.default_rng([seed, units]).permutation(units)
    for name, fraction in fractions.items():
        key = digest(seed, name, *fractions.items())
        called = f"{source.name}[{name}]"
        if order is not None and units is not None:
            start, stop = bounds[name]
            chosen = np.zeros(units, bool)
            chosen[order[start:stop]] = True
            parts[name] = Subset(source, _Within(chosen), called, key=key, size=stop - start)
        else:
            parts[name] = Subset(source, _HashedBetween(seed, low, low + fraction), called, key=key)
            low += fraction
    return parts


def _bounds(count: int, fractions: Mapping[str, float]) -> dict[str, tuple[int, int]]:
    """Where each part starts and stops among `count` shuffled ones; none is empty while there are enough."""
    edges = [0]
    done = 0.0
    for number, fraction in enumerate(fractions.values(), 1):
        done += fraction
        left_over = len(fractions) - number
        edges.append(max(min(round(done * count), count - left_over), min(edges[-1] + 1, count)))
    return {name: (edges[i], edges[i + 1]) for i, name in enumerate(fractions)}


@dataclass(frozen=True, eq=False)
class _Within:
    """Membership by a table. A class, and not a closure: sources are sent to other processes."""

    chosen: np.ndarray

    def __call__(self, number: int) -> bool:
        return number < len(self.chosen) and bool(self.chosen[number])


@dataclass(frozen=True)
class _HashedBetween:
    """Membership by a hash of the number."""

    seed: int
    low: float
    high: float

    def __call__(self, number: int) -> bool:
        return self.low <= _uniform(self.seed, number) < self.high


def _uniform(seed: int, index: int) -> float:
    """A number in [0, 1) from two integers: splitmix64."""
    mask = (1 << 64) - 1
    z = (index * 0x9E3779B97F4A7C15 + seed * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)
