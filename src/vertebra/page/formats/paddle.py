"""PaddleOCR 3 (a result, a service's answer) and 2 (a list): polygons in pixels of the image that was read.

That image is the source's after its orientation was mended: the angle is in the result (of PP-Structure, beside it), and
boxes are turned back. An image that was unwarped as well cannot be turned back exactly; the page's notes have it then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vertebra.errors import DataError
from vertebra.page.formats.source import (
    PageSource,
    box_of,
    pixels,
    placed_words,
    points_of,
    required_box,
    share,
    text_of,
)
from vertebra.page.geometry import corners, turned_size
from vertebra.page.page import Line, Page, Word, quad_line


def fits(data: Any) -> bool:
    return bool(_results(data)) or _is_old(data)


def _results(data: Any) -> list[dict[str, Any]]:
    """The results of any of its shapes: plain, in `res`, a service's answer, several in a list, among a layout's parts."""
    if isinstance(data, list):
        return [found for one in data for found in _results(one)] if data and isinstance(data[0], dict) else []
    if not isinstance(data, dict):
        return []
    if "rec_texts" in data:
        return [data]
    for inner in ("overall_ocr_res", "res", "prunedResult", "result", "ocrResults", "layoutParsingResults"):
        if inner in data:
            return [_known_outside(data, found) for found in _results(data[inner])]
    return []


def _known_outside(outer: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A result with what stands beside it: its file, its page, how the picture was mended before it was read."""
    made: dict[str, Any] = {
        name: outer[name] for name in ("input_path", "page_index") if found.get(name) is None and name in outer
    }
    first, then = (one.get("doc_preprocessor_res") or {} for one in (outer, found))
    if first:
        settings = [one.get("model_settings") or {} for one in (first, then)]
        unwarped = any(one.get("use_doc_unwarping") for one in settings)
        made["doc_preprocessor_res"] = {
            "angle": _angle(first) + _angle(then), "model_settings": {"use_doc_unwarping": unwarped}
        }  # fmt: skip
    return {**found, **made}


def _angle(mended: dict[str, Any]) -> int:
    angle = int(mended.get("angle") or 0)
    return 0 if angle == -1 else angle  # -1: nobody looked


def _is_old(data: Any) -> bool:
    """`[[[poly], [text, score]], …]`, with or without a list of pages around; a blank page of them is None."""
    if not isinstance(data, list) or not data:
        return False
    if _is_row(data[0]):
        return True
    pages = [rows for rows in data if rows]
    return all(isinstance(rows, list) and _is_row(rows[0]) for rows in pages) and (bool(pages) or None in data)


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, list) and len(row) == 2 and isinstance(row[1], (list, tuple)) and len(row[1]) == 2
        and isinstance(row[1][0], str) and isinstance(row[0], list)
    )  # fmt: skip


def read(source: PageSource) -> list[Page]:
    results = _results(source.content)
    if not results:
        pages = [source.content] if _is_row(source.content[0]) else source.content
        return [
            source.page([_old_line(row) for row in rows or ()], number=number) for number, rows in enumerate(pages, 1)
        ]
    return [_page(source, found, number) for number, found in enumerate(results, 1)]


def _old_line(row: Sequence[Any]) -> Line:
    return quad_line(text_of(row[1][0]), points_of(row[0]), confidence=share(row[1][1]))


def _page(source: PageSource, found: dict[str, Any], number: int) -> Page:
    mended = found.get("doc_preprocessor_res") or {}
    angle, settings = _angle(mended), mended.get("model_settings") or {}
    if angle % 90:
        raise DataError(f"{source.where} was turned by {angle} degrees; expected 0, 90, 180 or 270")
    seen = replace(source, size=source.size and turned_size(source.size, angle))
    number = int(found["page_index"]) + 1 if found.get("page_index") is not None else number
    notes = (
        ("read from an unwarped image: boxes lie beside the picture's",) if settings.get("use_doc_unwarping") else ()
    )
    page = seen.page(_lines(found), number=number, name=found.get("input_path") or None, notes=notes)
    return page.turned(angle)  # it had been turned the other way round


def _lines(found: dict[str, Any]) -> list[Line]:
    texts, scores = found["rec_texts"], found.get("rec_scores") or [None] * len(found["rec_texts"])
    polys = found.get("rec_polys") or [corners(box_of(box)) for box in found["rec_boxes"]]
    words, boxes = found.get("text_word") or (), found.get("text_word_boxes") or ()
    lines = []
    for number, (text, score, poly) in enumerate(zip(texts, scores, polys, strict=True)):
        own: tuple[Word, ...] = ()
        if number < len(words) and number < len(boxes):
            own = tuple(
                Word(word, box_of(box)) for word, box in zip(words[number], boxes[number], strict=True) if word.strip()
            )
        lines.append(quad_line(text_of(text), points_of(poly), confidence=share(score), words=own))
    return lines


def write(pages: Sequence[Page]) -> str:
    made = [_written(pixels(page)) for page in pages]
    return json.dumps(made[0] if len(made) == 1 else made, ensure_ascii=False, indent=1) + "\n"


def _written(page: Page) -> dict[str, Any]:
    boxes = [list(required_box(line, "PaddleOCR")) for line in page.lines]
    polys = [[list(point) for point in line.quad or corners(required_box(line, "PaddleOCR"))] for line in page.lines]
    made: dict[str, Any] = {
        "input_path": page.name,
        "page_index": page.number - 1 if page.number > 1 else None,
        "dt_polys": polys,
        "rec_texts": [line.text for line in page.lines],
        "rec_scores": [line.confidence for line in page.lines],
        "rec_polys": polys,
        "rec_boxes": boxes,
    }
    if any(map(placed_words, page.lines)):
        made["text_word"] = [[word.text for word in placed_words(line)] for line in page.lines]
        made["text_word_boxes"] = [
            [list(required_box(word, "PaddleOCR")) for word in placed_words(line)] for line in page.lines
        ]
    return made
