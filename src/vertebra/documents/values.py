"""From an answer to a `Found`: its texts are looked up on the page, normalised, and held against the schema's rules.

Nothing is raised: what is wrong with a value is listed beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import fmean
from typing import Any

from vertebra.documents.field import Field
from vertebra.documents.found import Found
from vertebra.documents.normalise import WritingHabits, normalised
from vertebra.documents.spelled import SpelledValue, spelled
from vertebra.page.pieces import TextPlace, TextPlaces, pieces

Probability = Callable[[int, int], float]
"""Of the characters from one to another."""


@dataclass
class Values:
    """Makes values of one window's answers."""

    places: TextPlaces
    habits: WritingHabits
    absent: str = "null"
    errors: list[str] = field(default_factory=list)

    def of(self, asked: Field, text: str, probability: Probability, *, quoted: bool, whole: bool) -> Found:
        """The answer of a model as a `Found`. `whole`: it was not cut off."""
        if not quoted:
            start = len(text) - len(text.lstrip())
            answer = text.strip()
            if answer == self.absent.strip() or not answer:
                return Found(name=asked.name, confidence=probability(0, len(text)))
            return self._leaf(asked, SpelledValue(answer, start, len(text), whole=whole), probability, asked.name)
        return self._value(asked, spelled(text), probability, asked.name)

    def _value(self, asked: Field, spelled: SpelledValue, probability: Probability, path: str) -> Found:
        if asked.kind == "record":
            return self._record(asked, spelled, probability, path)
        if asked.kind == "list":
            return self._list(asked, spelled, probability, path)
        return self._leaf(asked, spelled, probability, path)

    def _record(self, asked: Field, spelled: SpelledValue, probability: Probability, path: str) -> Found:
        inner = spelled.value if isinstance(spelled.value, dict) else {}
        never = SpelledValue(None, spelled.start, spelled.end)  # absent as a whole
        fields = {
            one.name: self._value(one, inner.get(one.name, never), probability, f"{path}.{one.name}")
            for one in asked.fields
            if one.name in inner or not inner or spelled.whole
        }
        for one in asked.fields:  # what was cut off
            fields.setdefault(one.name, Found(name=one.name, note="the answer ended before it"))
        fields = {one.name: fields[one.name] for one in asked.fields}
        return record_of(asked.name, fields)

    def _list(self, asked: Field, spelled: SpelledValue, probability: Probability, path: str) -> Found:
        assert asked.item is not None
        given = spelled.value if isinstance(spelled.value, list) else []
        items = tuple(self._value(asked.item, one, probability, f"{path}[{n}]") for n, one in enumerate(given))
        some = tuple(one for one in items if one.value is not None)
        return list_of(asked.name, some, empty=probability(spelled.start, spelled.end))

    def _leaf(self, asked: Field, spelled: SpelledValue, probability: Probability, path: str) -> Found:
        confidence = probability(spelled.start, spelled.end)
        if spelled.value is None:
            return Found(name=asked.name, confidence=confidence)
        if asked.kind == "choice":
            return self._chosen(asked, spelled, confidence)
        text = str(spelled.value)
        if asked.free:
            note = "" if spelled.whole else "the answer was cut off"
            return self._judged(
                asked, Found(name=asked.name, value=text, text=text, confidence=confidence, note=note), path
            )
        text, stands = self._standing(text, spelled.whole, across=asked.across)
        if not stands:
            return Found(name=asked.name, confidence=confidence, note="the answer was cut off before a whole word")
        made = normalised(text, asked.kind, self.habits)
        if made.error:
            self.errors.append(f"`{path}`: {text!r:.60} {made.error}")
        note = "; ".join(
            part for part in (made.note, made.error, "" if spelled.whole else "the answer was cut off") if part
        )
        found = Found(
            name=asked.name, value=made.value, text=text, confidence=confidence, places=stands, note=note
        )  # fmt: skip
        return self._judged(asked, found, path)

    def _chosen(self, asked: Field, spelled: SpelledValue, confidence: float) -> Found:
        text = str(spelled.value)
        if not spelled.whole and spelled.value not in asked.choices:
            return Found(name=asked.name, confidence=confidence, note="the answer was cut off")
        return Found(
            name=asked.name, value=spelled.value, text=text, confidence=confidence, places=self.places.of(text)
        )  # fmt: skip

    def _standing(self, text: str, whole: bool, *, across: bool) -> tuple[str, tuple[TextPlace, ...]]:
        """A text and where it stands; of one that was cut off, as many of its pieces as stand somewhere."""
        found = self.places.of(text, across=across)
        if found or whole:
            return text, found
        for _, end in reversed(pieces(text)):
            if stands := self.places.of(text[:end], across=across):
                return text[:end], stands
        return text, ()

    def _judged(self, asked: Field, found: Found, path: str) -> Found:
        """Held against the schema's rules."""
        if found.value is not None:
            self.errors += [f"`{path}`: {fault}" for fault in faults_of(asked, found.value)]
        return found


def record_of(name: str, fields: dict[str, Found]) -> Found:
    """A record of its fields; absent where all of them are."""
    there = any(one.value is not None for one in fields.values())
    value = {key: one.value for key, one in fields.items()} if there else None
    return Found(name=name, value=value, fields=fields, confidence=fmean(one.confidence for one in fields.values()))


def list_of(name: str, items: tuple[Found, ...], *, empty: float) -> Found:
    """A list of its items; `empty`: the confidence where there are none."""
    confidence = fmean(one.confidence for one in items) if items else empty
    return Found(name=name, value=[one.value for one in items], items=items, confidence=confidence)


def faults_of(asked: Field, value: Any) -> list[str]:
    """Which rules a value breaks, in words."""
    found = []
    for rule, limit in asked.rules.items():
        broken = _BROKEN.get(rule)
        try:
            if broken is not None and broken[0](value, limit):
                found.append(f"{value!r:.60} {broken[1].format(limit)}")
        except TypeError:
            continue  # a rule for another kind of value
    return found


def list_faults(asked: Field, value: Any, path: str) -> Iterator[str]:
    """Which rules the lists in a value break, wherever they stand in it: they are whole only once all windows are read."""
    if asked.kind == "record" and value is not None:
        for one in asked.fields:
            yield from list_faults(one, value[one.name], f"{path}.{one.name}")
    if asked.kind == "list" and value is not None:
        assert asked.item is not None
        yield from (f"`{path}`: {fault}" for fault in faults_of(asked, value))
        for number, one in enumerate(value):
            yield from list_faults(asked.item, one, f"{path}[{number}]")


def _is_multiple(value: Any, of: Any) -> bool:
    """As decimals, in which both were written: 0.3 is three times 0.1, and no integer is too large."""
    numbers = isinstance(value, int | float) and not isinstance(value, bool)
    return not numbers or (Fraction(str(value)) / Fraction(str(of))).denominator == 1


_BROKEN: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "pattern": (lambda value, limit: isinstance(value, str) and not re.search(limit, value), "does not match {!r}"),
    "minLength": (lambda value, limit: isinstance(value, str) and len(value) < limit, "has fewer than {} letters"),
    "maxLength": (lambda value, limit: isinstance(value, str) and len(value) > limit, "has more than {} letters"),
    "minimum": (lambda value, limit: value < limit, "is below {}"),
    "maximum": (lambda value, limit: value > limit, "is above {}"),
    "exclusiveMinimum": (lambda value, limit: value <= limit, "is not above {}"),
    "exclusiveMaximum": (lambda value, limit: value >= limit, "is not below {}"),
    "multipleOf": (lambda value, limit: not _is_multiple(value, limit), "is no multiple of {}"),
    "minItems": (lambda value, limit: isinstance(value, list) and len(value) < limit, "has fewer than {} items"),
    "maxItems": (lambda value, limit: isinstance(value, list) and len(value) > limit, "has more than {} items"),
    "uniqueItems": (
        lambda value, limit: limit and isinstance(value, list) and any(one in value[:n] for n, one in enumerate(value)),
        "has an item twice",
    ),
}  # fmt: skip
