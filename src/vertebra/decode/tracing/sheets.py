"""A page as a row has it: its lines with the positions that they take, the slots and the boxes. Data, no drawing.

    ids    Total 9.50 ▢ ↵      positions 41 to 46, the slot of its box at 45
    role   page  …      page   a line ends with the token that holds its line end

All of it is read off the batch, whoever rendered it: boxes as raw items, in whole numbers of the model's scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vertebra.sequence.roles import Role

BOXES = "boxes"
SCALE = 1000
"""What coordinates go up to, where the model's record does not say it."""


@dataclass
class SheetLine:
    """One line of a page, or a box that a question is about."""

    text: str
    first: int
    """The first of its positions in the row, without padding."""
    last: int
    slots: list[int] = field(default_factory=list)
    """Positions that an embedding of a box fills, or is added to."""
    box: list[float] | None = None
    """Left, top, right, bottom; None: the model was given none."""
    asked: bool = False
    """A box of a question, and no line."""


@dataclass
class TraceSheet:
    """One page of a row."""

    lines: list[SheetLine]
    scale: float


def sheets(model: Any, batch: Any, row: int, tokenizer: Any) -> list[TraceSheet]:
    """The pages of a row that has boxes or lines of pages; a run of lines is a page."""
    real = batch["attention_mask"][row].bool()
    ids, roles, slots = (batch[key][row, real].tolist() for key in ("input_ids", "role", "slot"))
    boxes = _boxes(batch, row, slots)
    added = BOXES in model.parts and model.parts[BOXES].place == "added"
    scale = float(model.record.get("page", {}).get("scale", SCALE))
    found: list[TraceSheet] = []
    open_line: list[int] = []
    begun = False

    def close() -> Iterator[SheetLine]:
        if open_line:
            words = [ids[at] for at in open_line if added or slots[at][0] < 0]
            own = [at for at in open_line if at in boxes]
            text = tokenizer.decode(words, clean_up_tokenization_spaces=False).strip()
            box = next((boxes[at] for at in own), None)
            yield SheetLine(text=text, first=open_line[0], last=open_line[-1], slots=own, box=box)
            open_line.clear()

    for at, role in enumerate(roles):
        if role == Role.PAGE:
            if not begun:
                found.append(TraceSheet(lines=[], scale=scale))
                begun = True
            open_line.append(at)
            is_word = added or slots[at][0] < 0
            if is_word and "\n" in tokenizer.decode([ids[at]], clean_up_tokenization_spaces=False):
                found[-1].lines += close()
            continue
        if begun:
            found[-1].lines += close()
            begun = False
        if at in boxes and found:
            found[-1].lines.append(SheetLine(text="", first=at, last=at, slots=[at], box=boxes[at], asked=True))
    if begun:
        found[-1].lines += close()
    return found


def _boxes(batch: Any, row: int, slots: list[list[int]]) -> dict[int, list[float] | None]:
    """The box of every position that has a slot of one, where the batch holds its numbers."""
    names, block = batch.get("segments", ()), batch.get("features", {}).get(BOXES)
    if BOXES not in names or block is None:
        return {}
    number, values = names.index(BOXES), block["values"][block["rows"] == row]
    at = [position for position, (segment, _) in enumerate(slots) if segment == number]
    if not len(values) or values.ndim != 2 or values.shape[1] != 4 or len(at) % len(values):
        return {}
    each = len(at) // len(values)  # slots that one box fills
    plain = values.tolist()
    found = {}
    for position in at:
        box = plain[slots[position][1] // each]
        found[position] = None if min(box) < 0 else box  # a line without a box has numbers below 0
    return found
