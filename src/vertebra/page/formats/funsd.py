"""FUNSD: entities of a form with labels and links, pixels of an image whose size the file does not hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vertebra.errors import DataError
from vertebra.page.formats.source import PageSource, box_of, pixels, placed_words, required_box, text_of
from vertebra.page.page import Line, Page, Word


def fits(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get("form"), list)


def read(source: PageSource) -> list[Page]:
    entities = source.content["form"]
    numbers = {entity.get("id", n): n for n, entity in enumerate(entities)}
    lines = [_line(entity) for entity in entities]
    links: dict[frozenset[int], list[int]] = {}
    for entity in entities:
        for pair in entity.get("linking") or ():
            if all(end in numbers for end in pair) and len(pair) == 2:
                ends = [numbers[end] for end in pair]  # question, answer; the file has each at both of its ends
                links.setdefault(frozenset(ends), ends)
    facts = {"links": sorted(links.values())}
    return [source.page(lines, facts=facts)]


def _line(entity: dict[str, Any]) -> Line:
    words = [Word(text_of(word["text"]), box_of(word["box"])) for word in entity.get("words") or ()]
    box = box_of(entity["box"]) if entity.get("box") else None
    return Line(text_of(entity.get("text", "")), box, label=entity.get("label"), words=tuple(words))


def write(pages: Sequence[Page]) -> str:
    if len(pages) != 1:
        raise DataError(
            f"FUNSD has one page a file, and the document has {len(pages)}; write each to a file of its own"
        )
    page = pixels(pages[0])
    links = page.facts.get("links", ())
    form = [
        {
            "id": number,
            "text": line.text,
            "box": list(required_box(line, "FUNSD")),
            "label": line.label or "other",
            "words": [{"text": word.text, "box": list(required_box(word, "FUNSD"))} for word in placed_words(line)],
            "linking": [list(link) for link in links if number in link],
        }
        for number, line in enumerate(page.lines)
    ]
    return json.dumps({"form": form}, ensure_ascii=False, indent=1) + "\n"
