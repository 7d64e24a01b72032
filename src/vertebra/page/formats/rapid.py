"""RapidOCR: a list of `{box, txt, score}`, corners in pixels of an image whose size the file does not hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vertebra.errors import DataError
from vertebra.page.formats.source import PageSource, pixels, points_of, required_box, share, text_of
from vertebra.page.geometry import corners
from vertebra.page.page import Page, quad_line


def fits(data: Any) -> bool:
    return (
        isinstance(data, list)
        and bool(data)
        and all(isinstance(row, dict) and "txt" in row and "box" in row for row in data)
    )


def read(source: PageSource) -> list[Page]:
    lines = [
        quad_line(text_of(row["txt"]), points_of(row["box"]), confidence=share(row.get("score")))
        for row in source.content
    ]
    return [source.page(lines)]


def write(pages: Sequence[Page]) -> str:
    if len(pages) != 1:
        raise DataError(
            f"RapidOCR has one page a file, and the document has {len(pages)}; write each to a file of its own"
        )
    rows = [
        {
            "box": [list(point) for point in line.quad or corners(required_box(line, "RapidOCR"))],
            "txt": line.text,
            "score": line.confidence,
        }
        for line in pixels(pages[0]).lines
    ]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
