"""DocVQA's questions: pages without lines, each with the questions about it. Its text is Microsoft's (`microsoft-read`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vertebra.errors import DataError
from vertebra.page.formats.source import PageSource, text_of
from vertebra.page.page import Page

_SET = ("dataset_name", "dataset_split", "dataset_version")


def fits(data: Any) -> bool:
    rows = data.get("data") if isinstance(data, dict) else None
    return (
        isinstance(rows, list) and all(isinstance(row, dict) and "question" in row for row in rows[:3]) and bool(rows)
    )


def read(source: PageSource) -> list[Page]:
    kept = {name: source.content[name] for name in _SET if name in source.content}
    questions: dict[str, list[dict[str, Any]]] = {}
    for row in source.content["data"]:
        image = text_of(row["image"])
        own = {name: value for name, value in row.items() if name not in ("question", "answers", "image")}
        asked = {"question": text_of(row["question"]), "answers": list(row.get("answers", ())), "docvqa": own}
        questions.setdefault(image, []).append(asked)
    return [
        source.page((), unit="relative", number=number, name=image, facts={"questions": asked, "docvqa": kept})
        for number, (image, asked) in enumerate(questions.items(), 1)
    ]


def write(pages: Sequence[Page]) -> str:
    rows = []
    for page in pages:
        for number, asked in enumerate(page.facts.get("questions", ())):
            own = asked.get("docvqa") or {"questionId": page.number * 1000 + number}
            answers = {"answers": list(asked["answers"])} if asked.get("answers") else {}
            rows.append({**own, "question": asked["question"], "image": page.name or "", **answers})
    if not rows:
        raise DataError(
            "DocVQA holds questions alone, and these pages have none in `facts['questions']`; write another format"
        )
    kept: dict[str, Any] = next((page.facts["docvqa"] for page in pages if "docvqa" in page.facts), {})
    return json.dumps({**kept, "data": rows}, ensure_ascii=False, indent=1) + "\n"
