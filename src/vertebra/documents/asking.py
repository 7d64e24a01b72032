"""How a model is asked for a field: what it reads of a document, in windows that fit, and the question behind them.

A model that was trained on pages has a record of how (`layout.PageRecord`); any other reads the words and is asked in plain
English for a text in quotes. The lines come first and the question last, so that what precedes it is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vertebra.documents.field import Field
from vertebra.documents.grammar import bare
from vertebra.documents.settings import ExtractSettings
from vertebra.errors import TooLongError
from vertebra.layout.lines import Laid
from vertebra.layout.record import PAGE, PageRecord
from vertebra.layout.renderer import Renderer
from vertebra.layout.rows import PageRow, page_row
from vertebra.layout.windows import page_windows
from vertebra.model.model import Model
from vertebra.page.page import Document
from vertebra.page.pieces import TextPlaces

UNTRAINED = PageRecord(
    manner="text",
    order="given",
    template="\n{question}",
    field="What is the {field} in the text above? Copy it exactly as it stands there, or answer null.",
    absent="null",
)
"""How a model is asked that knows nothing of pages."""
COPY = " Copy the answer exactly as it stands in the text, or answer null."
"""What such a model is asked beside somebody's own question."""
UNLIMITED = 4096
"""Positions of a window where a model sets no limit."""
LEAST = 16
"""Positions that a window of lines needs, to be worth anything."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DocumentReader:
    """One model and how it is asked."""

    model: Model
    settings: ExtractSettings

    @cached_property
    def record(self) -> PageRecord:
        """How the model reads pages."""
        if self.settings.record is not None:
            return self.settings.record
        trained = self.model.record.get(PAGE)
        return PageRecord.of(self.model.record, where=f"`{self.model.identifier}`") if trained else UNTRAINED

    @cached_property
    def renderer(self) -> Renderer:
        return Renderer.of(self.model)

    @property
    def trained(self) -> bool:
        """Whether it was trained on pages."""
        return bool(self.model.record.get(PAGE))

    def quoted(self, field: Field) -> bool:
        """Whether an answer is JSON, or the bare text."""
        if not bare(field):
            return True
        return not self.trained if self.settings.quoted is None else self.settings.quoted

    def tokens(self, field: Field) -> int:
        """Tokens that an answer may take."""
        given = self.settings.max_list_tokens if field.nested else self.settings.max_new_tokens
        most = self.model.context or UNLIMITED
        return given or (min(512, most // 4) if field.nested else min(64, most // 8))

    def question(self, field: Field) -> str:
        """What is asked for a field."""
        if field.question:
            return field.question + ("" if self.trained or field.free else COPY)
        asked = self.record.asked_field(field.asked)
        if field.kind == "choice":
            return f"{asked} One of: {', '.join(str(one) for one in field.choices)}."
        if field.nested:
            return f"{asked} Answer in JSON with {_shape(field)}."
        return asked

    def windows(
        self, document: Document, questions: Sequence[str], tokens: int, images: Mapping[int, Any]
    ) -> list[list[Laid]]:
        """The lines of a document in windows that leave room for every question and `tokens` of its answer."""
        room = self.settings.window
        if room is None:
            taken = max(len(self.row([], question).sequence) for question in questions)
            room = (self.model.context or UNLIMITED) - taken - tokens
            if room < LEAST:
                raise TooLongError(
                    f"`{self.model.identifier}` has {self.model.context} positions; the longest question takes {taken} and its "
                    f"answer {tokens}, which leaves {room} for the page: allow shorter answers (max_new_tokens, "
                    "max_list_tokens), or take a model with more positions"
                )
        eyes = bool(images) and self.record.image
        return list(
            page_windows(document, self.record, self.renderer, room=room, images=eyes, overlap=self.settings.overlap)
        )

    def row(self, lines: Sequence[Laid], question: str, images: Mapping[int, Any] | None = None) -> PageRow:
        """What the model reads to answer one question."""
        return page_row(lines, [(question, None)], self.record, self.renderer, images=images)


def places_of(lines: Sequence[Laid], document: Document) -> TextPlaces:
    """The lines of a window, with the places that they have in the document."""
    pages = {page.number: page for page in document}
    return TextPlaces([(one.page, one.number, pages[one.page].lines[one.number]) for one in lines])


def _shape(field: Field) -> str:
    """A list or a record in words."""
    if field.kind == "list":
        assert field.item is not None
        return f"a list of {_shape(field.item)}" if field.item.nested else "a list of texts"
    names = ", ".join(f'"{one.name}"' for one in field.fields)
    return f"objects of {names}"
