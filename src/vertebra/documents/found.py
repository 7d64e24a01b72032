"""What was found: a `Found` for each field, an `Extraction` for a document. Data, and its plain JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vertebra.page.geometry import Box
from vertebra.page.page import Document
from vertebra.page.pieces import TextPlace


@dataclass(frozen=True, kw_only=True)
class Found:
    """The answer for one field. Of records, `fields` holds those inside; of lists, `items` one for each item."""

    name: str
    value: Any = None
    """Normalised: a number, an ISO date, a text; None where the document does not have it."""
    text: str | None = None
    """As it stands on the page."""
    confidence: float = 0.0
    """0..1: how sure the model is of this answer, absence included."""
    places: tuple[TextPlace, ...] = ()
    """Every place where this text stands in what the model read; more than one: it cannot be known which was meant."""
    note: str = ""
    """What was assumed, or why there is no value."""
    fields: Mapping[str, Found] = field(default_factory=dict)
    items: tuple[Found, ...] = ()

    @property
    def page(self) -> int | None:
        """The number of the page on which it stands (the first)."""
        return self.places[0].page if self.places else None

    @property
    def lines(self) -> tuple[int, ...]:
        """The numbers of its lines on that page, all places together."""
        return tuple(dict.fromkeys(n for place in self.places if place.page == self.page for n in place.lines))

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Its boxes on that page, all places together, in the page's unit."""
        return tuple(box for place in self.places if place.page == self.page for box in place.boxes)

    @property
    def ambiguous(self) -> bool:
        return len(self.places) > 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        if self.fields:
            return {name: one.to_dict() for name, one in self.fields.items()}
        plain: dict[str, Any] = {"value": self.value, "text": self.text, "page": self.page}
        plain |= {"boxes": [_plain(box) for box in self.boxes], "lines": list(self.lines)}
        plain["confidence"] = round(self.confidence, 4)
        if self.ambiguous:
            plain["places"] = [
                {"page": one.page, "lines": list(one.lines), "boxes": [_plain(box) for box in one.boxes]}
                for one in self.places
            ]
        if self.items:
            plain["items"] = [one.to_dict() for one in self.items]
        if self.note:
            plain["note"] = self.note
        return plain

    def leaves(self, path: str = "") -> Iterator[tuple[str, Found]]:
        """(path, answer) of everything that is no record and no list; the places in a list are part of a path."""
        path = f"{path}.{self.name}" if path and self.name else path or self.name
        if self.fields:
            for one in self.fields.values():
                yield from one.leaves(path)
        elif self.items:
            for number, one in enumerate(self.items):
                inside = [pair for inner in one.fields.values() for pair in inner.leaves()]
                for inner, leaf in inside or [("", one)]:
                    yield f"{path}[{number}]{f'.{inner}' if inner else ''}", leaf
        else:
            yield path, self


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """One result over all pages of a document. Printed, it is its values."""

    fields: Mapping[str, Found]
    document: Document
    errors: tuple[str, ...] = ()
    """What is wrong with values, and what is missing: nothing of it was raised."""
    complete: bool = True
    """Every window was read for every field, and no answer was cut off."""
    windows: int = 1
    """Into how many windows the document was cut."""
    instance: Any = None
    """Of a pydantic class, where the values satisfy it."""

    def __getitem__(self, name: str) -> Found:
        return self.fields[name]

    @property
    def values(self) -> dict[str, Any]:
        """The values alone, nested as the schema is."""
        return {name: one.value for name, one in self.fields.items()}

    def leaves(self) -> Iterator[tuple[str, Found]]:
        """(path, answer) of every single value."""
        for one in self.fields.values():
            yield from one.leaves()

    def to_dict(self) -> dict[str, Any]:
        """Plain data: `fields`, `pages` (their sizes and units), `errors`."""
        pages = [
            {"page": page.number, "size": page.size and list(page.size), "unit": page.unit} for page in self.document
        ]
        return {
            "document": self.document.name, "pages": pages,
            "fields": {name: one.to_dict() for name, one in self.fields.items()},
            "errors": list(self.errors), "complete": self.complete,
        }  # fmt: skip

    def to_json(self, **options: Any) -> str:
        """The same as a text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, **{"indent": 2, **options})

    def __str__(self) -> str:
        return json.dumps(self.values, ensure_ascii=False, indent=2)


def _plain(box: Box) -> list[float]:
    return [round(side, 2) for side in box]
