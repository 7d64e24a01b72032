"""LayTextLLM: samples of lines (`ocr`), quads (`poly`), an image size, one question and its answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vertebra.page.formats.source import PageSource, pixels, points_of, required_box, text_of
from vertebra.page.geometry import corners
from vertebra.page.page import Page, quad_line

_OWN = ("source", "metadata")


def fits(data: Any) -> bool:
    rows = data if isinstance(data, list) else [data]
    return bool(rows) and all(isinstance(row, dict) and "ocr" in row and "poly" in row for row in rows)


def read(source: PageSource) -> list[Page]:
    rows = source.content if isinstance(source.content, list) else [source.content]
    pages = []
    for number, row in enumerate(rows, 1):
        lines = [quad_line(text_of(text), points_of(poly)) for text, poly in zip(row["ocr"], row["poly"], strict=True)]
        size = row.get("img_size")
        facts: dict[str, Any] = {"laytextllm": {name: row[name] for name in _OWN if name in row}}
        if "question" in row:
            facts["questions"] = [{"question": text_of(row["question"]), "answers": _listed(row.get("answer"))}]
        pages.append(source.page(lines, size=size and (size["w"], size["h"]), number=number, facts=facts))
    return pages


def _listed(answer: Any) -> list[Any]:
    if answer is None:
        return []
    return answer if isinstance(answer, list) else [answer]


def write(pages: Sequence[Page]) -> str:
    """A sample for every question; a page without one is a sample without."""
    rows = []
    for page in map(pixels, pages):
        width, height = page.size or (0, 0)
        polys = [line.quad or corners(required_box(line, "LayTextLLM")) for line in page.lines]
        base = {
            **page.facts.get("laytextllm", {}),
            "ocr": [line.text for line in page.lines],
            "poly": [[number for point in poly for number in point] for poly in polys],
            "img_size": {"h": height, "w": width},
        }
        for asked in page.facts.get("questions") or (None,):
            rows.append(
                base if asked is None else {**base, "question": asked["question"], "answer": _one(asked["answers"])}
            )
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


def _one(answers: Sequence[Any]) -> Any:
    return answers[0] if len(answers) == 1 else list(answers) or None
