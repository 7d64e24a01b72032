"""SROIE: a line of text a row, `x1,y1,x2,y2,x3,y3,x4,y4,text`; the text may hold commas and nothing is quoted.

Its four fields stand in a JSON file of the same name, in a folder `key` (or `entities`, whose files end in .txt) beside
`box`; the picture in `img`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vertebra.errors import DataError
from vertebra.page.formats.decoding import text_of_file
from vertebra.page.formats.source import PageSource, pixels, points_of, required_box, shown
from vertebra.page.geometry import corners
from vertebra.page.page import Line, Page, quad_line
from vertebra.reading import as_object, json_of, reading

_ROW = re.compile(r"\s*(-?\d+(?:\.\d+)?\s*,\s*){8}")
_BREAKS = re.compile("[\r\n]+")


def fits(text: str) -> bool:
    first = next((row for row in text.lstrip("\ufeff").split("\n") if row.strip()), "")
    return bool(_ROW.match(first))


def read(source: PageSource) -> list[Page]:
    lines: list[Line] = []
    for number, row in enumerate(source.content.lstrip("\ufeff").split("\n"), 1):
        cells = row.rstrip("\r").split(",", 8)
        if not row.strip():
            continue
        if len(cells) < 9:
            raise ValueError(f"line {number} has {len(cells)} cells; expected eight numbers and a text")
        lines.append(quad_line(cells[8].strip(), points_of(cells[:8])))
    key = _beside(source.path, "key", ".json") or _beside(source.path, "entities", ".txt")
    facts = {"fields": _fields(key)} if key else {}
    return [source.page(lines, facts=facts, name=source.path and Path(source.path).stem)]


def image_of(path: Path | None) -> Path | None:
    """The picture of a file of the data set's folders."""
    return _beside(path, "img", ".jpg") or _beside(path, "images", ".jpg")


def _fields(key: Path) -> dict[str, Any]:
    text, _ = text_of_file(key)  # as lenient about stray bytes as with the lines
    with reading(f"`{key}` is no JSON", "mend it, or take it out of its folder", error=DataError):
        return as_object(json_of(text), f"`{key}`")


def _beside(path: Path | None, folder: str, suffix: str) -> Path | None:
    found = path and path.parent.parent / folder / f"{path.stem}{suffix}"
    return found if found and found.is_file() else None


def write(pages: Sequence[Page]) -> str:
    if len(pages) != 1:
        raise DataError(
            f"SROIE has one page a file, and the document has {len(pages)}; write each to a file of its own"
        )
    rows = []
    for line in pixels(pages[0]).lines:
        points = line.quad or corners(required_box(line, "SROIE"))
        numbers = ",".join(shown(number) for point in points for number in point)
        rows.append(f"{numbers},{_BREAKS.sub(' ', line.text)}")
    return "\n".join(rows) + "\n"
