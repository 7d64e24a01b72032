"""A page drawn: its picture, or white, with the boxes of lines (and words) and their numbers in reading order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vertebra.errors import DataError
from vertebra.folders import named_file
from vertebra.page.geometry import corners
from vertebra.page.page import Page
from vertebra.page.pictures import opened

LINE, WORD, NUMBER = (200, 30, 30), (60, 120, 220), (20, 20, 20)
LONGEST = 1600
"""Pixels of the longer side of a page that has no picture."""


def drawn(page: Page, picture: Any = None, *, words: bool = True) -> Any:
    """The picture with the page's boxes on it; without one, boxes and texts on white."""
    from PIL import ImageDraw

    picture = page.image if picture is None else picture
    if picture is None:
        made = blank(page)
    else:
        made = opened(picture).convert("RGB")
    bare, pen = picture is None, ImageDraw.Draw(made)
    for number, line in enumerate(page.to("pixel", size=made.size).lines):
        if line.box is None:
            continue
        for word in line.words if words else ():
            if word.box is not None:
                pen.rectangle(list(word.box), outline=WORD)
        pen.polygon([tuple(point) for point in line.quad or corners(line.box)], outline=LINE, width=2)
        label = f"{number} {line.text}" if bare else str(number)
        pen.text((line.box.left + 2, line.box.top), label.encode("latin-1", "replace").decode("latin-1"), fill=NUMBER)
    return made


def blank(page: Page) -> Any:
    """White paper in the proportions of a page."""
    from PIL import Image

    if page.size is None:
        raise DataError("a page without a size and without a picture cannot be drawn; give `size=` or `image=`")
    scale = LONGEST / max(page.size)
    return Image.new("RGB", (max(1, round(page.size[0] * scale)), max(1, round(page.size[1] * scale))), "white")


def write_drawn(page: Page, path: str | Path, picture: Any = None) -> Path:
    """The same as a PNG file."""
    with named_file(path) as file:
        drawn(page, picture).save(file, "PNG")
    return file
