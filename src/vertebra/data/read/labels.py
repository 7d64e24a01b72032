"""The classes of labelled data: declared, known to the data set, or inferred from the labels that its rows have.

rows   0 0 1 0 1 yes 1 1 0 (empty) -1        classes 0, 1; a fault each: `yes`, the empty one, the −1
rows   0 0 1 0 1 1 1 0 0 1 … 2               a class with far less than its share is an outlier: declare it, or mend it
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vertebra.data.read.formats import Pair, Reader
from vertebra.data.read.rows import Row, Source
from vertebra.errors import ConfigError, did_you_mean

RARE = 0.1
"""An inferred class with less than this part of an even share may be a slip."""


class Labels:
    """The classes of a data set, by number and by name; numbers of a regression where they are no classes."""

    def __init__(self, names: Sequence[str] | None, *, by_number: bool = True, declared: bool = True) -> None:
        """`by_number`: a number means the class of that number. `declared`: somebody listed these as the classes."""
        self.names = None if names is None else list(names)
        self.by_number, self.declared = by_number, declared
        self.counts: Counter[str] = Counter()
        """Rows of each class, where it was inferred."""
        if self.names is not None and len(set(self.names)) < len(self.names):
            raise ConfigError(f"labels are named twice: {', '.join(self.names)}. Name each class once")

    @classmethod
    def of(cls, source: Source, reader: Reader | None = None, *, declared: Sequence[Any] = ()) -> Labels:
        """As declared; else as the data set names them; else as most of its rows spell them."""
        if declared:
            return cls([str(name) for name in declared])
        known = next(iter(source.label_names().values()), None)
        if known is not None:
            return cls(known)
        reader = reader or Reader("pairs")
        counts: Counter[str] = Counter()
        for row in source.rows():
            sample = reader(row) if isinstance(row, Row) else None
            if isinstance(sample, Pair) and not _is_blank(sample.label):
                counts[spelled(sample.label)] += 1
        made = cls._inferred(counts)
        made.counts = counts
        return made

    @classmethod
    def _inferred(cls, counts: Mapping[str, int]) -> Labels:
        numbers = {text: value for text in counts if (value := _number(text)) is not None}
        words = sum(count for text, count in counts.items() if text not in numbers)
        if words > sum(counts[text] for text in numbers):
            return cls(sorted(text for text in counts if text not in numbers), by_number=False, declared=False)
        broken = sum(counts[text] for text, value in numbers.items() if not value.is_integer())
        if broken and broken >= RARE * sum(counts[text] for text in numbers):  # fewer are slips among classes
            return cls(None, declared=False)
        used = sorted(int(value) for value in numbers.values() if value >= 0 and value.is_integer())
        highest = used[-1] if used else -1
        if highest > 10 * len(used) + 10:  # far apart: they are names, not a count from 0
            return cls([str(value) for value in used], by_number=False, declared=False)
        return cls([str(value) for value in range(highest + 1)], declared=False)

    def __len__(self) -> int:
        return 1 if self.names is None else len(self.names)

    def number(self, label: int | float | str | None) -> int | float | str:
        """The class of a label, or (as text) why it has none."""
        if _is_blank(label):
            return "no label: give one, or leave the row out"
        number = _number(label)
        if self.names is None:
            return number if number is not None else f"bad label: `{label}` is no number"
        text = spelled(label)
        if text in self.names and (isinstance(label, str) or not self.by_number):
            return self.names.index(text)
        if number is None or not number.is_integer() or not self.by_number:
            return f"unknown label: `{label}`.{did_you_mean(text, self.names)} Labels: {', '.join(self.names)}"
        if not 0 <= number < len(self.names):
            meaning = " (−1 marks rows without one, as in GLUE's test sets)" if number == -1 else ""
            return f"label out of range: {int(number)}{meaning}; expected 0 to {len(self.names) - 1}"
        return int(number)

    def outliers(self, counts: Mapping[str, int]) -> list[str]:
        """Inferred classes with far less than an even share of the rows."""
        used = {name: counts[name] for name in self.names or () if counts.get(name)}
        if self.declared or not used:
            return []
        return [name for name, count in used.items() if count < RARE * sum(used.values()) / len(used)]


def spelled(label: Any) -> str:
    """A label as text: `1` for 1, 1.0 and ` 1 `."""
    number = _number(label)
    return str(int(number)) if number is not None and number.is_integer() else str(label).strip()


def _is_blank(label: Any) -> bool:
    return label is None or (isinstance(label, str) and not label.strip())


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
