"""DocLayLLM: a list of `{box, text}` in reading order, whole pixels of an image whose size the file does not hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vertebra.errors import DataError
from vertebra.page.formats.source import PageSource, box_of, pixels, text_of
from vertebra.page.page import Line, Page


def fits(data: Any) -> bool:
    return (
        isinstance(data, list)
        and bool(data)
        and all(isinstance(row, dict) and "box" in row and "text" in row for row in data)
    )


def read(source: PageSource) -> list[Page]:
    lines = [
        Line(text_of(row["text"]), box_of(row["box"]) if row["box"] is not None else None) for row in source.content
    ]
    return [source.page(lines)]


def write(pages: Sequence[Page]) -> str:
    if len(pages) != 1:
        raise DataError(
            f"DocLayLLM has one page a file, and the document has {len(pages)}; write each to a file of its own"
        )
    rows = [
        {"box": None if line.box is None else [round(number) for number in line.box], "text": line.text}
        for line in pixels(pages[0]).lines
    ]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
