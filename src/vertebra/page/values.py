"""What a page is known to hold: the one value of each of its fields, whichever format names them.

SROIE   {"company": …, "total": "9.50"}                    company, total
CORD    {"total": {"total_price": "9.50"}, "menu": […]}    total total price     (a list has no one value)
FUNSD   links from a question to its answers               Date:  →  Date
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vertebra.page.page import Page


def known_values(page: Page) -> dict[str, str]:
    """The values by the names of their fields, with blanks in place of underscores; without the fields that are absent."""
    return {name: value for name, value in known_fields(page).items() if value is not None}


def known_fields(page: Page) -> dict[str, str | None]:
    """The same with them; None: the page is known not to have it."""
    found = dict(_leaves(page.facts.get("fields") or {}))
    for question, answers in answering_lines(page).items():
        name = " ".join(page.lines[question].text.split()).rstrip(":").strip()
        value = " ".join(" ".join(page.lines[one].text.split()) for one in answers)
        if name and value.strip() and page.lines[question].label in (None, "question"):
            found.setdefault(name, value)
    return found


def _leaves(tree: Any, above: str = "") -> Iterator[tuple[str, str | None]]:
    for name, value in tree.items() if isinstance(tree, Mapping) else ():
        full = f"{above} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from _leaves(value, full)
        elif value is None:
            yield full, None
        elif isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            yield full, " ".join(str(value).split())


def answering_lines(page: Page) -> dict[int, list[int]]:
    """FUNSD's links: of a line the lines that answer it."""
    links: dict[int, list[int]] = {}
    for question, answer in page.facts.get("links") or ():
        links.setdefault(question, []).append(answer)
    return links
