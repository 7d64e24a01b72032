"""docTR's export: pages, blocks, lines, words; boxes or quads relative to the page, whose `dimensions` are height, width."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from vertebra.page.formats.source import PageSource, placed_words, points_of, required_box, share, text_of
from vertebra.page.geometry import Box, around, corners
from vertebra.page.page import Line, Page, Word, line_of


def fits(data: Any) -> bool:
    pages = data.get("pages") if isinstance(data, dict) else None
    if isinstance(data, dict) and "dimensions" in data and "blocks" in data:
        return True
    return (
        isinstance(pages, list) and bool(pages) and all(isinstance(page, dict) and "blocks" in page for page in pages)
    )


def read(source: PageSource) -> list[Page]:
    pages = source.content.get("pages", [source.content])
    return [_page(source, found, number) for number, found in enumerate(pages, 1)]


def _page(source: PageSource, found: dict[str, Any], number: int) -> Page:
    height, width = found["dimensions"]
    lines = [_line(line) for block in found["blocks"] for line in block.get("lines", ())]
    lines += list(_tables(found))
    kept = [line for line in lines if line.text.strip()]
    return source.page(kept, size=(width, height), unit="relative", number=number)


def _line(line: dict[str, Any], label: str | None = None) -> Line:
    words = [
        Word(text_of(word["value"]), **_place(word["geometry"]), confidence=share(word.get("confidence")))
        for word in line["words"]
    ]
    place = _place(line["geometry"]) if line.get("geometry") else {"box": None}
    return line_of(words, place.pop("box"), label=label, **place)


def _tables(found: dict[str, Any]) -> Iterator[Line]:
    """From 1.0 on, the words of a table stand in its cells and nowhere else."""
    for table in found.get("tables") or ():
        for cell in table.get("cells") or ():
            if cell.get("lines"):
                yield from (_line(line, "table_cell") for line in cell["lines"])
            elif cell.get("words"):
                yield _line(cell, "table_cell")
            elif cell.get("value") and cell.get("geometry"):
                yield Line(text_of(cell["value"]), **_place(cell["geometry"]), label="table_cell")


def _place(geometry: Sequence[Any]) -> dict[str, Any]:
    points: Any = tuple(points_of(geometry))
    if len(points) == 2:
        (left, top), (right, bottom) = points
        return {"box": Box(left, top, right, bottom)}
    box = around(points)
    return {"box": box, "quad": points if len(points) == 4 and points != corners(box) else None}


def write(pages: Sequence[Page]) -> str:
    return json.dumps({"pages": [_written(page) for page in pages]}, ensure_ascii=False, indent=1) + "\n"


def _written(page: Page) -> dict[str, Any]:
    relative = page.to("relative")
    width, height = page.size or (1, 1)
    lines = []
    for line in relative.lines:
        words = placed_words(line) or (Word(line.text, line.box, quad=line.quad, confidence=line.confidence),)
        made = [
            {"value": word.text, "confidence": word.confidence, "geometry": _geometry(word), "objectness_score": None}
            for word in words
        ]
        lines.append({"geometry": _geometry(line), "objectness_score": None, "words": made})
    whole = [[0, 0], [1, 1]]
    return {
        "page_idx": page.number - 1,
        "dimensions": [height, width],
        "orientation": {"value": None, "confidence": None},
        "language": {"value": None, "confidence": None},
        "blocks": [{"geometry": whole, "objectness_score": None, "lines": lines, "artefacts": []}],
    }


def _geometry(one: Line | Word) -> list[list[float]]:
    box = required_box(one, "docTR")
    return [list(point) for point in one.quad] if one.quad else [[box.left, box.top], [box.right, box.bottom]]
