"""Windows of documents as samples: lines in an order and questions that are drawn anew in every epoch.

    epoch 0    line 3, line 1, line 2 …   What is the total? 9.50 │ Where is "Tax"? 3 40 12 44
    epoch 1    line 2, line 3, line 1 …   What is the date? …

A sample is a function of its number, the epoch and the seed. Pictures are opened when their batch is made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.data.encode.items import ImageItems
from vertebra.data.model_facts import ModelFacts
from vertebra.data.read.rows import digest
from vertebra.data.samples.samples import Samples, Vectors
from vertebra.errors import ConfigError, DataError
from vertebra.layout.apart import Apart
from vertebra.layout.lines import Laid, shuffled
from vertebra.layout.manners import BOXES, IMAGE
from vertebra.layout.record import PageRecord
from vertebra.layout.renderer import Renderer
from vertebra.layout.rows import PageRow, box_array, page_row
from vertebra.layout.windows import page_windows
from vertebra.sequence.length import listed
from vertebra.sequence.tokens import VECTORS
from vertebra.tasks.page_questions import PageQuestion, QuestionDraft, drawn_questions, known_questions, without
from vertebra.tasks.page_sets import PageDocument, PagesConfig

HELD_OUT = 1 << 20
"""Of the stream of numbers that held-out samples are drawn from, whatever the epoch."""

KEPT = 256
"""Rows that are kept made: those of a batch, and more."""


@dataclass(frozen=True, eq=False)
class WindowSample:
    """A window of a document."""

    document: PageDocument
    lines: list[Laid]
    known: Mapping[str, list[PageQuestion]]
    cost: int
    """Positions of its lines, with marks and pictures."""

    @property
    def brought(self) -> list[PageQuestion]:
        """Its fields and questions; what else is asked about it only helps to learn them."""
        return [*self.known.get("fields", ()), *self.known.get("questions", ())]


class PageSamples(Samples):
    """Samples of some documents. `fixed`: the same in every epoch, as evaluation sees them."""

    def __init__(
        self,
        documents: Sequence[PageDocument],
        model: ModelFacts,
        options: PagesConfig,
        *,
        size: int,
        seed: int = 0,
        fixed: bool = False,
    ) -> None:
        self.options, self.model, self.seed, self.fixed = options, model, seed, fixed
        self.record: PageRecord = options.record
        self.renderer = renderer_for(model, self.record)
        self.apart = Apart(self.record, self.renderer)
        self.base = len(page_row([], [("?", "?")], self.record, self.renderer).sequence)
        """Positions of a row without lines."""
        room = size - self.base - options.reserve
        if room < 1:
            raise ConfigError(
                f"block is {size} positions, of which {self.base} are the prompt's and {options.reserve} kept for questions "
                "(data.options.reserve): no line has room. Give a larger data.block"
            )
        self.views = [view for one in documents for view in self._views(one, room) if self._asks(view)]
        if not self.views and documents:
            raise DataError(
                "no document has a question of its own (fields, questions), and nothing else is asked (data.options.learn): "
                "there is nothing to learn"
            )
        self.names = sorted({q.name for view in self.views for q in view.known["fields"] if q.name})
        """Of all fields that are asked for."""
        self._require_room()
        self.lengths = np.array([self.base + view.cost + options.reserve for view in self.views], np.int64)
        self._made: OrderedDict[tuple[int, int], PageRow] = OrderedDict()

    def _asks(self, view: WindowSample) -> bool:
        """Whether there is anything to ask about a window."""
        own = any(view.known.get(name) for name in self.options.learn)
        made = any(weight > 0 and name not in view.known for name, weight in self.options.learn.items())
        return own or made or (self.options.missing > 0 and self.options.learn.get("fields", 0) > 0)

    def _views(self, document: PageDocument, room: int) -> Iterator[WindowSample]:
        eyes = self.record.image and bool(document.pictures)
        for lines in page_windows(document.pages, self.record, self.renderer, room=room, images=eyes):
            known = known_questions(document.pages, lines, self.record, self.options.fields)
            yield WindowSample(document, lines, known, self._cost(lines, eyes))

    def _cost(self, lines: Sequence[Laid], eyes: bool) -> int:
        images = {line.page: object() for line in lines} if eyes else None
        return len(page_row(lines, [("?", "?")], self.record, self.renderer, images=images).sequence) - self.base

    def _require_room(self) -> None:
        """Questions and answers that the reserve has no room for would stop a training in its middle."""
        asked = [(view, one) for view in self.views for own in view.known.values() for one in own]
        counts = self.renderer.count([f"{one.text} {one.answer}" for _, one in asked])
        faults = [
            f"{view.document.name}: {one.text[:60]!r} and its answer take {count}"
            for (view, one), count in zip(asked, counts, strict=True)
            if count + 8 > self.options.reserve
        ]
        if faults:
            raise DataError(
                f"questions that are longer than the {self.options.reserve} positions kept for them (data.options.reserve): "
                f"{listed(faults)}"
            )

    def row(self, index: int, epoch: int = 0) -> PageRow:
        """Sample `index` of an epoch."""
        key = index, HELD_OUT if self.fixed else epoch
        if key not in self._made:  # a batch asks for all its sequences first, and then for all their items
            self._made[key] = self._row(self.views[index], np.random.default_rng([self.seed, key[1], index]))
        while len(self._made) > KEPT:
            self._made.popitem(last=False)
        return self._made[key]

    def _row(self, view: WindowSample, draw: Any) -> PageRow:
        asking = QuestionDraft(
            lines=view.lines, record=self.record, known=view.known, draw=draw, missing=self.options.missing,
            others=[name for name in self.names if all(one.name != name for one in view.known["fields"])],
        )  # fmt: skip
        asked = drawn_questions(asking, self.options.learn, self.options.turns)
        images = {number: number for number in self._pictured(view)}
        limit = self.base + view.cost + self.options.reserve
        row = (self._apart if self.options.apart else self._together)(view, asked, draw, images, limit)
        if row is not None:
            return row
        # nothing can be asked of these lines: what they are is still learned by reading them
        return page_row(view.lines, [("?", self.record.absent)], self.record, self.renderer, images=images)

    def _apart(
        self, view: WindowSample, asked: Sequence[PageQuestion], draw: Any, images: Mapping[int, Any], limit: int
    ) -> PageRow | None:
        """As many of the questions as there is room for, none of which sees another."""
        lines = without(view.lines, asked)
        lines = shuffled(lines, draw) if self.options.shuffle else lines
        turns = [(one.parts, one.answer) for one in asked]
        return self.apart(lines, turns, images=images, most=limit) if turns else None

    def _together(
        self, view: WindowSample, asked: Sequence[PageQuestion], draw: Any, images: Mapping[int, Any], limit: int
    ) -> PageRow | None:
        """As many of the questions as there is room for, one after the other."""
        for count in range(len(asked), 0, -1):
            lines = without(view.lines, asked[:count])
            lines = shuffled(lines, draw) if self.options.shuffle else lines
            turns = [(one.parts, one.answer) for one in asked[:count]]
            row = page_row(lines, turns, self.record, self.renderer, images=images)
            if len(row.sequence) <= limit:
                return row
        return None

    def _pictured(self, view: WindowSample) -> list[int]:
        if not self.record.image:
            return []
        return [
            number for number in dict.fromkeys(line.page for line in view.lines) if number in view.document.pictures
        ]

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        sequence = self.row(index, epoch).sequence
        return {name: getattr(sequence, name) for name in VECTORS} | {"segments": sequence.segments}

    def extra(self, index: int, epoch: int = 0) -> Mapping[str, Any]:
        items = self.row(index, epoch).items
        found: dict[str, Any] = {BOXES: items[BOXES]} if BOXES in items else {}
        if IMAGE in items:
            found[IMAGE] = [self.views[index].document.pictures[number]() for number in items[IMAGE]]
        return found

    def where(self, index: int) -> str:
        view = self.views[index]
        first, last = view.lines[0], view.lines[-1]
        return (
            f"{view.document.name}, line {first.number} of page {first.page} to line {last.number} of page {last.page}"
        )

    def fingerprint(self) -> str:
        content = [(view.document.content, len(view.lines)) for view in self.views]
        return digest("pages", content, repr(self.options), self.seed, self.fixed, self.base)

    def alone(self) -> Iterator[tuple[int, PageQuestion]]:
        """Every field and question that documents bring, with the number of its window: one of each, then the next of each."""
        own = [view.brought for view in self.views]
        for place in range(max(map(len, own), default=0)):
            for number, questions in enumerate(own):
                if place < len(questions):
                    yield number, questions[place]

    def asking(self, index: int, questions: Sequence[PageQuestion]) -> tuple[list[PageRow], list[dict[str, Any]]]:
        """Rows of one window, each with a question alone and ready for its answer; and their items, prepared."""
        view = self.views[index]
        draw = np.random.default_rng([self.seed, HELD_OUT, index])
        lines = shuffled(view.lines, draw) if self.options.shuffle else view.lines
        pictures = {number: view.document.pictures[number]() for number in self._pictured(view)}
        rows = [page_row(lines, [(one.parts, None)], self.record, self.renderer, images=pictures) for one in questions]
        make = PageItems(self.model)
        return rows, [make(row.items) for row in rows]


class PageItems(ImageItems):
    """The raw items of a sample's slots: boxes as numbers, pictures as pixels."""

    def __init__(self, model: ModelFacts) -> None:
        self.how = model.preparation

    def images(self, extra: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
        return {IMAGE: extra.get(IMAGE, ())}

    def pixels(self, images: Sequence[Any] | np.ndarray) -> np.ndarray:
        from vertebra.model.encoders.images import prepare_images

        assert self.how is not None, "a model with pictures prepares them"
        return prepare_images(list(images), self.how)

    def __call__(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        return {**({BOXES: box_array(extra[BOXES])} if BOXES in extra else {}), **self.shown(extra)}


def renderer_for(model: ModelFacts, record: PageRecord) -> Renderer:
    """The model's own, with the slot of a box where the model gets its part for boxes from the task."""
    own = Renderer.of(model)
    if record.image and IMAGE not in own.sizes:
        raise ConfigError(
            f"the page's picture is shown (data.options.image), and `{model.name}` has no part for images; give the model "
            "`image` settings, or leave the picture out"
        )
    sizes = {**own.sizes, BOXES: own.sizes.get(BOXES, 1)} if record.how.boxes else own.sizes
    return Renderer(builder=own.builder, tokenizer=own.tokenizer, sizes=sizes, anchored=own.anchored, anchor=own.anchor)
