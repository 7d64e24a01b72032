"""`page_row`: lines of a page and what is asked about them become one sequence, the items of its slots, and the way back.

    ▣×196   Invoice 4711 ▢ ↵  Total 9.50 ▢ ↵   What is the total?  │ 9.50 </s>
    image    line 0            line 1           user                 assistant

The one function that writes rows, for training and for inference. A question may be about a box: `box_part`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from vertebra.errors import ConfigError, DataError
from vertebra.layout.lines import Laid, Whole
from vertebra.layout.manners import BOXES, IMAGE
from vertebra.layout.places import Places
from vertebra.layout.record import PageRecord
from vertebra.layout.renderer import Renderer
from vertebra.prompt.assembly import Traced
from vertebra.sequence.tokens import TokenSequence

Question = str | Sequence[Any]
"""A text, or parts: texts and boxes (`box_part`)."""
Turns = Sequence[tuple[Question, str | None]]
"""Questions, each with its answer; the last may await one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PageRow:
    """A page and what is asked about it, as a model reads it."""

    sequence: TokenSequence
    items: dict[str, list[Any]]
    """The raw items of its slots, by segment: boxes as lists of four whole numbers (or None), pictures as they were given.
    `model.prepare(items)` makes features of them."""
    places: Places

    @property
    def head(self) -> int:
        """Positions until behind the last line: the same ones, whatever is asked (`decode.Prefilled(upto=row.head)`)."""
        lined = np.flatnonzero(self.places.origin[:, 0] >= 0)
        return int(lined[-1]) + 1 if len(lined) else 1


def box_part(box: Sequence[float], scale: int = 1000) -> dict[str, Any]:
    """A box as a part of a question, from a box of 0..1 of the page: `[box_part(box), "What stands here?"]`."""
    return {"type": "box", "box": [min(max(round(number * scale), 0), scale) for number in box]}


def page_row(
    lines: Sequence[Laid],
    turns: Turns,
    record: PageRecord,
    renderer: Renderer,
    *,
    images: Mapping[int, Any] | None = None,
) -> PageRow:
    """Lines and questions as one row, ready for an answer where the last question has none.

    `images`: the pictures of pages by their numbers, where the record has them before the lines; a page without one has
    no slots of it.
    """
    _require(record, renderer, turns)
    page_parts, items = _pages(lines, record, images or {})
    talk: list[dict[str, Any]] = []
    for number, (question, answer) in enumerate(turns):
        asked = asked_parts(question, record, items)
        content = [*page_parts, *asked] if number == 0 else asked
        talk.append({"role": "user", "content": content})
        if answer is not None:
            talk.append({"role": "assistant", "content": answer})
    traced = renderer(talk, open_turn=turns[-1][1] is None)
    origin = np.full((len(traced.sequence), 2), -1, np.int64) if traced.origin is None else traced.origin
    sequence = traced.sequence
    if record.how.added:
        sequence, items[BOXES] = _added(Traced(sequence, origin), lines, record, items.get(BOXES, []))
    elif record.how.boxes:
        items[BOXES] = [line.box for line in lines] + items.get(BOXES, [])
    return PageRow(
        sequence=sequence,
        items={name: values for name, values in items.items() if values},
        places=Places(tuple(lines), origin),
    )


NO_BOX = (-100,) * 4
"""A box that says there is none."""


def box_array(boxes: Sequence[Any]) -> np.ndarray:
    """[M, 4]: boxes of a row as encoders read them; None becomes the box that says there is none."""
    return np.asarray([NO_BOX if box is None else box for box in boxes], np.int64).reshape(len(boxes), 4)


def _require(record: PageRecord, renderer: Renderer, turns: Turns) -> None:
    absent = [name for name in record.segments if name not in renderer.sizes]
    if absent:
        raise ConfigError(
            f"the record of pages needs the parts {', '.join(absent)}, and this model has {', '.join(renderer.sizes) or 'none'}"
        )
    if not turns:
        raise DataError("nothing is asked about the page; give at least one question")
    if any(answer is None for _, answer in turns[:-1]):
        raise DataError("a question before the last one has no answer; only the last may await one")


def _pages(
    lines: Sequence[Laid], record: PageRecord, images: Mapping[int, Any]
) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """The parts of a message that hold the pages, and the pictures among the items."""
    parts: list[dict[str, Any]] = []
    items: dict[str, list[Any]] = {}
    first = 0
    runs = [(number, list(own)) for number, own in groupby(lines, lambda line: line.page)]
    for number, own in runs:
        if record.image and images.get(number) is not None:
            parts.append({"type": "image", "name": IMAGE})
            items.setdefault(IMAGE, []).append(images[number])
        if len(runs) > 1:
            parts.append({"type": "text", "text": record.mark.replace("{number}", str(number)) + "\n"})
        written = [{"text": line.text, "words": line.words} for line in own]
        parts.append({"type": "page", "lines": written, "slot": record.how.slot, "first": first})
        first += len(own)
    return parts, items


def asked_parts(question: Question, record: PageRecord, items: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """What is asked, as parts; its boxes join the items."""
    before, after = record.template.split("{question}", 1)
    parts: list[dict[str, Any]] = [{"type": "text", "text": before}] if before else []
    for part in [question] if isinstance(question, str) else question:
        if isinstance(part, str):
            parts.append({"type": "text", "text": part})
        elif isinstance(part, Mapping) and part.get("type") == "box":
            parts.append(_box(part["box"], record, items))
        elif isinstance(part, Mapping) and part.get("type") == "text":
            parts.append(dict(part))
        else:
            raise DataError(f"a part of a question is {part!r:.80}; expected a text, or a box (`box_part`)")
    return [*parts, {"type": "text", "text": after}] if after else parts


def _box(box: Sequence[int], record: PageRecord, items: dict[str, list[Any]]) -> dict[str, Any]:
    """A box that is asked about: a slot of its own, or numbers where the model has no part for boxes."""
    if not record.how.boxes:
        return {"type": "text", "text": f"[{' '.join(map(str, box))}]"}
    items.setdefault(BOXES, []).append(tuple(box))
    return {"type": "vector", "name": BOXES}


def _added(
    traced: Traced, lines: Sequence[Laid], record: PageRecord, asked: Sequence[Any]
) -> tuple[TokenSequence, list[Any]]:
    """The tokens of lines with slots that a box is added to; slots of boxes that are asked about stay among them."""
    sequence, origin = traced.sequence, traced.origin
    assert origin is not None
    segments = sequence.segments if BOXES in sequence.segments else (*sequence.segments, BOXES)
    number = segments.index(BOXES)
    own = sequence.slot[:, 0] == number
    here = own | ((origin[:, 0] >= 0) & (sequence.slot[:, 0] < 0))
    at = np.flatnonzero(here)
    slot = sequence.slot.copy()
    slot[at, 0], slot[at, 1] = number, np.arange(len(at))
    of_line = [line.box for line in lines]
    boxes: list[Any]
    if record.boxes != "line":
        places = origin[at].tolist()
        boxes = [of_line[line] if word < 0 else lines[line].word_boxes[word] for line, word in places]
    else:
        boxes = [of_line[line] for line in origin[at, 0].tolist()] if lines else [None] * len(at)
    if record.boxes == "token":
        boxes = _shared(boxes, origin[at])
    for n, box in zip(np.flatnonzero(own[at]).tolist(), asked, strict=True):
        boxes[n] = box
    made = TokenSequence(**{**vars(sequence), "slot": slot, "segments": segments})
    return made, boxes


def _shared(boxes: Sequence[Whole | None], origin: np.ndarray) -> list[Any]:
    """The boxes of words, cut from left to right between the tokens of each, which follow one another."""
    begins = np.flatnonzero(np.any(origin[1:] != origin[:-1], 1)) + 1
    edges = [0, *begins.tolist(), len(origin)]
    made: list[Any] = []
    for begin, end in pairwise(edges):
        box = boxes[begin] if end > begin else None
        if box is None or origin[begin, 1] < 0:
            made += boxes[begin:end]
            continue
        left, top, right, bottom = box
        cuts = [left + round((right - left) * at / (end - begin)) for at in range(end - begin + 1)]
        made += [(start, top, stop, bottom) for start, stop in pairwise(cuts)]
    return made
