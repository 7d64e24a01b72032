"""A sheet: texts at places, in fonts, before anything is drawn; its boxes are measured by the fonts themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from vertebra.page.geometry import Box, union
from vertebra.page.page import Line, Page, Word
from vertebra.page.paper.fonts import font


@dataclass(frozen=True, slots=True)
class TextRun:
    """One line of text. `x` is its left end, its middle or its right end, `y` its top."""

    text: str
    x: float
    y: float
    font: str
    size: int
    side: Literal["l", "m", "r"] = "l"
    label: str | None = None
    """Whose name it is (`key`) or whose value: `total`, `date` …"""
    key: bool = False

    @property
    def left(self) -> float:
        wide = font(self.font, self.size).getlength(self.text)
        return self.x - {"l": 0.0, "m": wide / 2, "r": wide}[self.side]

    def words(self) -> list[Word]:
        """Its words, measured."""
        made, at = [], 0
        letters = font(self.font, self.size)
        for word in self.text.split():
            at = self.text.index(word, at)
            start = self.left + letters.getlength(self.text[:at])
            left, top, right, bottom = letters.getbbox(word, anchor="lt")
            at += len(word)
            made.append(Word(word, Box(start + left, self.y + top, start + right, self.y + bottom)))
        return made


@dataclass(kw_only=True)
class PaperSheet:
    """What stands on a page, and what it says."""

    kind: str
    size: tuple[int, int]
    runs: list[TextRun] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    """What it says, by field."""
    sorts: dict[str, str] = field(default_factory=dict)
    """Of each field what it is: `amount`, `number`, `date`, `text`."""
    rules: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Straight lines, from and to."""

    def write(self, *runs: TextRun) -> None:
        self.runs += runs

    def state(self, name: str, value: str, sort: str) -> None:
        self.fields[name], self.sorts[name] = value, sort

    def page(self, number: int = 1) -> Page:
        """Its lines, as they were written, with measured boxes; `facts`: `fields`, `sorts`, and of each field its lines."""
        lines, evidence = [], {name: [] for name in self.fields}  # type: ignore[var-annotated]
        for place, run in enumerate(self.runs):
            words = tuple(run.words())
            box = union(word.box for word in words if word.box is not None)
            lines.append(Line(run.text, box, words=words, label=_label(run)))
            if run.label is not None and not run.key:
                evidence[run.label].append(place)
        facts: dict[str, Any] = {"fields": dict(self.fields), "sorts": dict(self.sorts), "evidence": evidence}
        return Page.of(lines, size=self.size, number=number, facts=facts, on_bad="repair", name=self.kind)


def _label(run: TextRun) -> str | None:
    return None if run.label is None else f"{run.label}.key" if run.key else run.label
