"""A page as a row has it: its picture, or white, with the box of each line and the positions that the line takes.

    ┌──────────────────┐
    │ 41–46▢  Total    │     positions 41 to 46 of the row, with a slot for the box
    └──────────────────┘

A line that the model was not given as it stands (its text or its box hidden) is drawn in another color.
"""

from __future__ import annotations

from typing import Any

from vertebra.layout.manners import BOXES
from vertebra.layout.rows import PageRow
from vertebra.page.drawing import LONGEST
from vertebra.page.page import Page
from vertebra.page.pictures import opened

SEEN, HIDDEN, SAID = (30, 100, 200), (210, 110, 20), (20, 20, 20)


def drawn_row(row: PageRow, page: Page, picture: Any = None) -> Any:
    """The page of one number, with what the row holds of it; `picture`: its image, else texts are written on white."""
    from PIL import Image, ImageDraw

    size = page.size or (1.0, 1.4)
    if picture is None:
        scale = LONGEST / max(size)
        made = Image.new("RGB", (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), "white")
    else:
        made = opened(picture).convert("RGB")
    pen = ImageDraw.Draw(made)
    boxes = page.to("pixel", size=made.size).lines if any(line.box for line in page.lines) else page.lines
    for line in row.places.lines:
        box = boxes[line.number].box if line.page == page.number else None
        if box is None:
            continue
        whole = " ".join(page.lines[line.number].text.split()) == line.text and line.box is not None
        pen.rectangle(list(box), outline=SEEN if whole else HIDDEN, width=2)
        at = row.places.at(line.page, line.number)
        slots = int(_slots(row, at))
        label = f"{at[0]}–{at[-1]}{'▢' * min(slots, 1)}"
        text = f"{label} {line.text}" if picture is None else label
        pen.text((box.left + 2, box.top if picture is None else max(box.top - 11, 0)), _plain(text), fill=SAID)
    return made


def _slots(row: PageRow, at: Any) -> int:
    """How many of these positions have a box."""
    if BOXES not in row.sequence.segments:
        return 0
    return (row.sequence.slot[at, 0] == row.sequence.segments.index(BOXES)).sum()


def _plain(text: str) -> str:
    """What Pillow's own font can write."""
    return text.replace("–", "-").replace("▢", " []").encode("latin-1", "replace").decode("latin-1")
