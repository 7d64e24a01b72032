"""Docling's JSON: items in a tree, each with provenances: a page, a box in points with an origin of its own, a range of
characters. An item of several provenances becomes a line for each; running heads and feet (`furniture`) are left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vertebra.page.formats.source import PageSource, required_box, text_of
from vertebra.page.geometry import Box
from vertebra.page.page import Line, Page

Placed = tuple[int, Line]


def fits(data: Any) -> bool:
    return isinstance(data, dict) and data.get("schema_name") == "DoclingDocument"


def read(source: PageSource) -> list[Page]:
    data = source.content
    sizes = {int(n): (page["size"]["width"], page["size"]["height"]) for n, page in data.get("pages", {}).items()}
    lines: dict[int, list[Line]] = {number: [] for number in sorted(sizes)}
    for number, line in _walk(data, sizes):
        lines.setdefault(number, []).append(line)
    name = (data.get("origin") or {}).get("filename") or data.get("name")
    return [
        source.page(found, size=sizes.get(number), unit="point", number=number, name=name)
        for number, found in lines.items()
    ]


def _walk(data: Mapping[str, Any], sizes: Mapping[int, tuple[float, float]]) -> Iterator[Placed]:
    """Lines in the order of the body's tree."""
    waiting, seen = [{"$ref": "#/body"}], set()
    while waiting:
        ref = waiting.pop()["$ref"]
        if ref in seen:
            continue
        seen.add(ref)
        item = _item(data, ref)
        if item.get("content_layer") == "furniture":
            continue
        yield from _lines(item, sizes)
        waiting += reversed(item.get("children") or [])


def _item(data: Mapping[str, Any], ref: str) -> Any:
    found: Any = data
    for step in ref.lstrip("#/").split("/"):
        found = found[int(step)] if isinstance(found, list) else found[step]
    return found


def _lines(item: Mapping[str, Any], sizes: Mapping[int, tuple[float, float]]) -> Iterator[Placed]:
    label = item.get("label")
    if isinstance(item.get("text"), str):
        yield from _text_lines(item, label, sizes)
    for cell in (item.get("data") or {}).get("table_cells", ()):
        page = (item.get("prov") or [{"page_no": 1}])[0]["page_no"]
        if text_of(cell["text"]).strip():
            box = _box(cell["bbox"], sizes.get(page)) if cell.get("bbox") else None
            yield page, Line(cell["text"], box, label="table_cell")
    for cell in (item.get("graph") or {}).get("cells", ()):
        if cell.get("prov"):
            page = cell["prov"]["page_no"]
            yield (
                page,
                Line(text_of(cell["text"]), _box(cell["prov"]["bbox"], sizes.get(page)), label=cell.get("label")),
            )


def _text_lines(item: Mapping[str, Any], label: Any, sizes: Mapping[int, tuple[float, float]]) -> Iterator[Placed]:
    places = item.get("prov") or ()
    for place in places:
        text = item["text"]
        if len(places) > 1:
            start, stop = place["charspan"]
            text = (item.get("orig") or text)[start:stop]
        if text.strip():
            page = place["page_no"]
            yield page, Line(text.strip(), _box(place["bbox"], sizes.get(page)), label=label)


def _box(found: Mapping[str, Any], size: tuple[float, float] | None) -> Box:
    left, top, right, bottom = (found[side] for side in "ltrb")
    if str(found.get("coord_origin", "TOPLEFT")).upper().endswith("BOTTOMLEFT"):
        if size is None:
            raise ValueError("a box counts from the bottom of a page without a size")
        top, bottom = size[1] - top, size[1] - bottom
    return Box(left, top, right, bottom)


def write(pages: Sequence[Page]) -> str:
    texts: list[dict[str, Any]] = []
    sizes = {}
    for page in pages:
        page = page if page.unit == "point" else page.to("point", dpi=page.dpi or 72)
        width, height = page.size or (0, 0)
        sizes[str(page.number)] = {"size": {"width": width, "height": height}, "page_no": page.number}
        texts += [_text(line, page.number, len(texts) + place) for place, line in enumerate(page.lines)]
    name = next((page.name for page in pages if page.name), "document")
    made = {
        "schema_name": "DoclingDocument",
        "version": "1.10.0",
        "name": name,
        "body": {
            "self_ref": "#/body", "label": "unspecified", "name": "_root_", "content_layer": "body",
            "children": [{"$ref": text["self_ref"]} for text in texts],
        },
        "groups": [], "texts": texts, "pictures": [], "tables": [], "key_value_items": [], "form_items": [],
        "pages": sizes,
    }  # fmt: skip
    return json.dumps(made, ensure_ascii=False, indent=1) + "\n"


def _text(line: Line, page: int, number: int) -> dict[str, Any]:
    left, top, right, bottom = required_box(line, "Docling")
    box = {"l": left, "t": top, "r": right, "b": bottom, "coord_origin": "TOPLEFT"}
    return {
        "self_ref": f"#/texts/{number}", "parent": {"$ref": "#/body"}, "children": [], "content_layer": "body",
        "label": line.label or "text", "orig": line.text, "text": line.text,
        "prov": [{"page_no": page, "bbox": box, "charspan": [0, len(line.text)]}],
    }  # fmt: skip
