"""`Apart`: many questions about one page as one row, none of which sees another; each reads as if it were asked alone.

    <s> Invoice 4711 ▢ ↵  Total 9.50 ▢ ↵ │ What is the total? 9.50 </s> │ Who sold it? …      │ a branch begins

Training pages so is what asking them is: an answer cannot lean on the one before it. What a question adds to a page does not
depend on the page, and is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vertebra.errors import DataError
from vertebra.layout.lines import Laid
from vertebra.layout.places import Places
from vertebra.layout.record import PageRecord
from vertebra.layout.renderer import Renderer
from vertebra.layout.rows import PageRow, Question, Turns, asked_parts, page_row
from vertebra.sequence.branches import branched, tail_of
from vertebra.sequence.tokens import TokenSequence

KEPT = 4096
"""Questions with their answers that are kept rendered."""
PLAIN = "What?"
"""A question that no tokenizer joins with the line before it."""


class Apart:
    """Rows of branches, as a record and a model have them."""

    def __init__(self, record: PageRecord, renderer: Renderer) -> None:
        self.record, self.renderer = record, renderer
        self._tails: OrderedDict[Any, TokenSequence] = OrderedDict()
        self._ends: OrderedDict[str | None, list[int]] = OrderedDict()

    def __call__(
        self, lines: Sequence[Laid], turns: Turns, *, images: Mapping[int, Any] | None = None, most: int | None = None
    ) -> PageRow | None:
        """A row of these lines, with as many questions from the first on as `most` positions have room for; None: not one."""
        whole = page_row(lines, turns[:1], self.record, self.renderer, images=images)
        head = whole.head
        trunk, tails = whole.sequence.cut(0, head), []
        items = {name: list(values) for name, values in whole.items.items()}
        used = head
        for number, (question, answer) in enumerate(turns):
            own: dict[str, list[Any]] = {}
            parts = asked_parts(question, self.record, own)
            tail = self._tail(lines[-1:], question, answer, parts)
            used += len(tail)
            if most is not None and used > most:
                break
            tails.append(tail)
            if number:  # those of the first are there
                for name, values in own.items():
                    items.setdefault(name, []).extend(values)
        if not tails:
            return None
        sequence = branched(trunk, tails)
        origin = np.full((len(sequence), 2), -1, np.int64)
        origin[:head] = whole.places.origin[:head]
        return PageRow(sequence=sequence, items=items, places=Places(tuple(lines), origin))

    def _tail(
        self, lines: Sequence[Laid], question: Question, answer: str | None, parts: Sequence[Mapping[str, Any]]
    ) -> TokenSequence:
        """What stands behind the last line, whichever that is. Whose box is asked about makes no difference: boxes are items,
        and their slots are alike. A page without lines has more behind its beginning."""
        key = tuple(tuple(part.items()) for part in parts), answer, bool(lines)
        if key not in self._tails:
            row = page_row(lines, [(question, answer)], self.record, self.renderer)
            if row.sequence.ids[: row.head].tolist() != self._end(lines):
                asked = "".join(part.get("text", "▢") for part in parts)
                raise DataError(
                    f"the tokenizer joins the end of a page with a question ({asked!r}), so that questions do not go on from "
                    "one and the same page; let each follow the one before it (data.options.apart=false)"
                )
            self._tails[key] = tail_of(row.sequence, row.head)
            while len(self._tails) > KEPT:
                self._tails.popitem(last=False)
        self._tails.move_to_end(key)
        return self._tails[key]

    def _end(self, lines: Sequence[Laid]) -> list[int]:
        """The ids of a page that ends in this line, whatever is asked about it."""
        key = lines[0].text if lines else None
        if key not in self._ends:
            row = page_row(lines, [(PLAIN, None)], self.record, self.renderer)
            self._ends[key] = row.sequence.ids[: row.head].tolist()
            while len(self._ends) > KEPT:
                self._ends.popitem(last=False)
        return self._ends[key]
