"""Microsoft Read, the text that DocVQA ships: lines and words with eight numbers each, in pixels or inches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vertebra.errors import DataError
from vertebra.page.formats.source import PageSource, pixels, placed_words, points_of, required_box, share, text_of
from vertebra.page.geometry import around, corners
from vertebra.page.page import Line, Page, Word

POINTS_AN_INCH = 72
_WORDS = {"High": 0.9, "Low": 0.3}
"""Older files have a word for a confidence."""


def fits(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get("recognitionResults"), list)


def read(source: PageSource) -> list[Page]:
    return [_page(source, found, number) for number, found in enumerate(source.content["recognitionResults"], 1)]


def _page(source: PageSource, found: dict[str, Any], number: int) -> Page:
    unit = found.get("unit", "pixel")
    if unit not in ("pixel", "inch"):
        raise DataError(f"{source.where} measures in {unit!r:.40}; expected pixel or inch")
    scale = POINTS_AN_INCH if unit == "inch" else 1
    size = (found["width"] * scale, found["height"] * scale) if found.get("width") and found.get("height") else None
    lines = [
        Line(
            text_of(line["text"]),
            **_place(line["boundingBox"], scale),
            words=tuple(
                Word(text_of(word["text"]), **_place(word["boundingBox"], scale), confidence=_sure(word))
                for word in line.get("words", ())
            ),
        )
        for line in found.get("lines", ())
    ]
    return source.page(
        lines, size=size, unit="point" if unit == "inch" else "pixel", number=int(found.get("page", number))
    )


def _sure(word: dict[str, Any]) -> float | None:
    value = word.get("confidence")
    return _WORDS.get(value) if isinstance(value, str) else share(value)


def _place(flat: Sequence[Any], scale: float) -> dict[str, Any]:
    points: Any = tuple((x * scale, y * scale) for x, y in points_of(flat))
    box = around(points)
    return {"box": box, "quad": points if len(points) == 4 and points != corners(box) else None}


def write(pages: Sequence[Page]) -> str:
    made = [_written(pixels(page)) for page in pages]
    return json.dumps({"status": "Succeeded", "recognitionResults": made}, ensure_ascii=False, indent=1) + "\n"


def _written(page: Page) -> dict[str, Any]:
    width, height = page.size or (0, 0)
    lines = [{**_row(line), "words": [_row(word) for word in placed_words(line)]} for line in page.lines]
    return {"page": page.number, "width": width, "height": height, "unit": "pixel", "lines": lines}


def _row(one: Line | Word) -> dict[str, Any]:
    points = one.quad or corners(required_box(one, "Microsoft Read"))
    sure = {"confidence": one.confidence} if isinstance(one, Word) and one.confidence is not None else {}
    return {"boundingBox": [number for point in points for number in point], "text": one.text, **sure}
