"""Rows with their place of origin, the faults met while reading them, and the abstract source of both.

A source is a numbered series of *units* (a line, a record, an item). `raw` walks the units without understanding them,
which is cheap and is what skipping and sharding do; `parse` makes a row of one, or a fault that knows file and line.
This module does not know what the fields of a row mean.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from vertebra import log
from vertebra.errors import DataError, UnknownNameError

OnBad = Literal["fail", "skip"]
ON_BAD: tuple[OnBad, ...] = ("fail", "skip")

SHOWN = 20
"""How many faults a message spells out; the rest is counted."""


class Raw(NamedTuple):
    """One unit, not yet understood."""

    number: int
    """Its number in the source, from 0."""
    line: int
    """Its line (or record) in its file, from 1."""
    data: Any
    """What `parse` needs: bytes, fields, or the `Fault` that reading met."""


@dataclass(frozen=True, slots=True)
class Row:
    """One understood unit."""

    fields: dict[str, Any]
    file: str
    line: int
    item: int = 0
    """Its number in a JSON array, from 1, where many may share a line; 0 elsewhere."""

    @property
    def where(self) -> str:
        return place_of(self.file, self.line, self.item)

    def fault(self, message: str) -> Fault:
        """That it cannot be used."""
        return Fault(self.file, self.line, message, self.item)


@dataclass(frozen=True, slots=True)
class Fault:
    """One unit that cannot be used, and why."""

    file: str
    line: int
    message: str
    item: int = 0

    @property
    def where(self) -> str:
        return place_of(self.file, self.line, self.item)

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class Source(ABC):
    """A numbered series of units that can be walked from any number on, as often as needed."""

    name: str
    """What messages call it: a path, a hub name, `<list>`."""

    @abstractmethod
    def raw(self, start: int = 0) -> Iterator[Raw]:
        """The units from number `start` on, not understood."""

    @abstractmethod
    def parse(self, raw: Raw) -> Row | Fault | None:
        """The row of a unit, its fault, or None for a unit that says nothing (a blank line)."""

    @abstractmethod
    def units(self) -> int | None:
        """How many units there are, or None where only reading to the end can tell."""

    @abstractmethod
    def fingerprint(self) -> str | None:
        """A hash of the content, the key of what is cached from it; None where the content cannot be known before."""

    def rows(self, start: int = 0) -> Iterator[Row | Fault]:
        """Every row and every fault, in order."""
        for raw in self.raw(start):
            row = self.parse(raw)
            if row is not None:
                yield row

    def parts(self) -> list[Source]:
        """The files it consists of, for a split by file; itself where it is one."""
        return [self]

    def at_epoch(self, epoch: int, *, seed: int = 0, shuffle: bool = True) -> Source:
        """The same units as this epoch orders them; a source that has one order only is itself."""
        return self

    def label_names(self) -> dict[str, list[str]]:
        """The names of every column of class labels, where the source knows them."""
        return {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


@dataclass
class Faults:
    """The faults of one scan: all are counted, the first ones are kept for the message."""

    on_bad: OnBad = "fail"
    kept: list[Fault] = field(default_factory=list)
    count: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.on_bad not in ON_BAD:
            raise UnknownNameError("choice for bad rows", self.on_bad, ON_BAD)

    def add(self, fault: Fault) -> None:
        self.count += 1
        self.kinds[fault.message.split(":")[0]] += 1
        if len(self.kept) < 1000:
            self.kept.append(fault)

    def settle(self, name: str, *, good: int) -> None:
        """The end of the scan: fail with the list, or say how many rows were left out."""
        if not self.count:
            return
        if self.on_bad == "fail":
            raise DataError(self.report(name, good=good))
        log.warn(f"{name}: left out {self.count} of {self.count + good} rows that cannot be used")

    def report(self, name: str, *, good: int | None = None) -> str:
        """The list of faults; `good` is how many rows had none, where the scan went to its end."""
        among = "" if good is None else f" of {self.count + good}"
        lines = [f"{name}: {self.count}{among} rows cannot be used"]
        lines += [f"  {fault}" for fault in self.kept[:SHOWN]]
        if self.count > SHOWN:
            kinds = ", ".join(f"{count} × {kind}" for kind, count in self.kinds.most_common(5))
            lines.append(f"  … and {self.count - SHOWN} more ({kinds})")
        lines.append(
            'Mend them, or leave them out by choice: on_bad="skip" (--skip-bad; in a recipe data.on_bad=skip).'
        )
        return "\n".join(lines)


def place_of(file: str, line: int, item: int = 0) -> str:
    """How messages name a place: no two rows of a source share one."""
    return (f"{file}:{line}" if line else file) + (f", item {item}" if item else "")


def digest(*parts: object) -> str:
    """A short hash of the parts' text; the parts are kept apart, so that ("ab", "c") differs from ("a", "bc")."""
    made = hashlib.blake2b(digest_size=16)
    for part in parts:
        text = str(part).encode("utf-8", "surrogatepass")
        made.update(f"{len(text)}:".encode())
        made.update(text)
    return made.hexdigest()
