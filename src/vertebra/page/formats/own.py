"""Our own JSON: everything that a page has. Also rows of `{name, size, lines: [{text, quad or box}], fields}`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vertebra.page.formats.source import PageSource, box_of, points_of, share, text_of
from vertebra.page.geometry import around, corners
from vertebra.page.page import Line, Page, Word

_KNOWN = {"name", "size", "unit", "size_unit", "number", "dpi", "lines", "facts", "origin", "notes"}


def fits(data: Any) -> bool:
    pages = data.get("pages", [data]) if isinstance(data, dict) else None
    return isinstance(pages, list) and bool(pages) and all(_is_page(page) for page in pages)


def _is_page(page: Any) -> bool:
    lines = page.get("lines") if isinstance(page, dict) else None
    return isinstance(lines, list) and all(isinstance(line, dict) and "text" in line for line in lines[:3])


def read(source: PageSource) -> list[Page]:
    pages = source.content.get("pages", [source.content])
    return [_page(source, page, number) for number, page in enumerate(pages, 1)]


def _page(source: PageSource, page: Mapping[str, Any], number: int) -> Page:
    given = {name: page[name] for name in ("unit", "size_unit", "origin", "dpi", "name") if page.get(name) is not None}
    beside = {name: value for name, value in page.items() if name not in _KNOWN}
    facts = {**beside, **(page.get("facts") or {})}
    lines = [_line(line) for line in page["lines"]]
    return source.page(lines, size=page.get("size"), number=page.get("number", number), facts=facts, **given)


def _line(line: Mapping[str, Any]) -> Line:
    return Line(text_of(line["text"]), **_rest(line), words=tuple(_word(word) for word in line.get("words") or ()))


def _word(word: Mapping[str, Any]) -> Word:
    return Word(text_of(word["text"]), **_rest(word))


def _rest(one: Mapping[str, Any]) -> dict[str, Any]:
    quad: Any = tuple(points_of(one["quad"])) if one.get("quad") else None
    box = box_of(one["box"]) if one.get("box") else around(quad) if quad else None
    quad = None if quad is None or len(quad) != 4 or quad == corners(around(quad)) else quad
    return {"box": box, "quad": quad, "confidence": share(one.get("confidence")), "label": one.get("label")}


def write(pages: Sequence[Page]) -> str:
    return json.dumps({"pages": [as_dict(page) for page in pages]}, ensure_ascii=False, indent=1) + "\n"


def as_dict(page: Page) -> dict[str, Any]:
    """A page as plain data, without what it does not have."""
    made = {
        "number": page.number,
        "name": page.name,
        "size": None if page.size is None else list(page.size),
        "unit": page.unit,
        "size_unit": page.size_unit if page.size_unit != page.unit else None,
        "dpi": page.dpi,
        "facts": dict(page.facts) or None,
        "notes": list(page.notes) or None,
        "lines": [_plain(line) for line in page.lines],
    }
    return {name: value for name, value in made.items() if value is not None}


def _plain(one: Line | Word) -> dict[str, Any]:
    made = {
        "text": one.text,
        "box": None if one.box is None else list(one.box),
        "quad": None if one.quad is None else [list(point) for point in one.quad],
        "confidence": one.confidence,
        "label": one.label,
        "words": [_plain(word) for word in one.words] or None if isinstance(one, Line) else None,
    }
    return {name: value for name, value in made.items() if value is not None}
