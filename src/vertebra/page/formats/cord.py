"""CORD v2: lines of a receipt as words with quads, a category, groups and rows; the parsed receipt stands beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vertebra.errors import DataError
from vertebra.page.formats.source import PageSource, pixels, placed_words, required_box, text_of
from vertebra.page.geometry import around, corners
from vertebra.page.page import Line, Page, Word, line_of
from vertebra.reading import json_of

KEY = "key"
"""The label of a word that names a value and is none."""
_KEPT = ("roi", "repeating_symbol", "dontcare")


def fits(data: Any) -> bool:
    if isinstance(data, dict) and isinstance(data.get("ground_truth"), (str, dict)):
        return True
    return isinstance(data, dict) and isinstance(data.get("valid_line"), list)


def read(source: PageSource) -> list[Page]:
    data = source.content
    if "ground_truth" in data:  # a row of the data set on the hub
        data = json_of(data["ground_truth"]) if isinstance(data["ground_truth"], str) else data["ground_truth"]
    meta = data.get("meta") or {}
    size = meta.get("image_size")
    lines = [_line(row) for row in data["valid_line"]]
    own = {
        "groups": [[row.get("group_id"), row.get("sub_group_id")] for row in data["valid_line"]],
        "rows": [[word.get("row_id") for word in row["words"]] for row in data["valid_line"]],
        "meta": {name: value for name, value in meta.items() if name != "image_size"},
        **{name: data[name] for name in _KEPT if name in data},
    }
    facts = {"fields": data.get("gt_parse", {}), "cord": own}
    return [source.page(lines, size=size and (size["width"], size["height"]), facts=facts)]


def _line(row: Mapping[str, Any]) -> Line:
    words = []
    for word in row["words"]:
        quad = word["quad"]
        points: Any = tuple((quad[f"x{n}"], quad[f"y{n}"]) for n in (1, 2, 3, 4))
        box = around(points)
        label = KEY if word.get("is_key") else None
        words.append(Word(text_of(word["text"]), box, quad=None if points == corners(box) else points, label=label))
    return line_of(words, label=row.get("category"))


def write(pages: Sequence[Page]) -> str:
    if len(pages) != 1:
        raise DataError(f"CORD has one page a file, and the document has {len(pages)}; write each to a file of its own")
    page = pixels(pages[0])
    own = page.facts.get("cord", {})
    width, height = page.size or (0, 0)
    made = {
        "gt_parse": page.facts.get("fields", {}),
        "meta": {**own.get("meta", {}), "image_size": {"width": width, "height": height}},
        "valid_line": [_row(line, number, own) for number, line in enumerate(page.lines)],
        **{name: own[name] for name in _KEPT if name in own},
    }
    return json.dumps(made, ensure_ascii=False, indent=1) + "\n"


def _row(line: Line, number: int, own: Mapping[str, Any]) -> dict[str, Any]:
    groups, rows = own.get("groups", ()), own.get("rows", ())
    group, sub = groups[number] if number < len(groups) else (number, None)
    words = placed_words(line) or (Word(line.text, line.box, quad=line.quad),)
    own_rows = rows[number] if number < len(rows) else ()
    if len(own_rows) != len(words):  # words that are no more those of the file
        own_rows = [number] * len(words)
    made = []
    for word, row in zip(words, own_rows, strict=True):
        points = word.quad or corners(required_box(word, "CORD"))
        quad = {f"{axis}{n}": point[k] for n, point in enumerate(points, 1) for k, axis in enumerate("xy")}
        made.append({"quad": quad, "is_key": int(word.label == KEY), "row_id": row, "text": word.text})
    return {"words": made, "category": line.label, "group_id": group, "sub_group_id": sub}
