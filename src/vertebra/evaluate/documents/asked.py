"""What is asked of a page in an evaluation, and what is right: from the facts that formats keep (`fields`, `questions`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vertebra.documents.field import Field
from vertebra.documents.normalise import normalised
from vertebra.errors import DataError, UnknownNameError
from vertebra.page.geometry import Box
from vertebra.page.metrics.answers import plain
from vertebra.page.metrics.evidence import lines_with
from vertebra.page.page import Page
from vertebra.page.values import known_fields

SHORTEST = 3
"""Letters of a line that is evidence because it is part of an answer over several lines."""


@dataclass(frozen=True, kw_only=True)
class GoldQuestion:
    """One question about one page, with its gold answers; none: the page does not have it."""

    field: Field
    golds: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Of what type the answer is: date, amount or text."""
        return type_of(self.golds[0]) if self.golds else "absent"


def type_of(text: str) -> str:
    """A date, an amount, or text."""
    letters = sum(letter.isalpha() for letter in text)
    if not normalised(text, "date").error and letters <= 9:
        return "date"
    if not normalised(text, "number").error and letters <= 3:
        return "amount"
    return "text"


def asked_of(page: Page, fields: Iterable[str] | None = None, across: Iterable[str] = ()) -> list[GoldQuestion]:
    """The one value of each field (`known_fields`), and all questions of `facts["questions"]`; `fields`: of these names."""
    over = {_plain_name(name) for name in across}
    found = [
        GoldQuestion(field=Field(name=name, across=name in over), golds=() if value is None else (value,))
        for name, value in known_fields(page).items()
    ]
    for one in page.facts.get("questions") or ():
        question, golds = str(one["question"]), tuple(map(str, one.get("answers") or ()))
        if golds and question not in [two.field.name for two in found]:
            found.append(GoldQuestion(field=Field(name=question, question=question), golds=golds))
    asked = None if fields is None else {_plain_name(name) for name in fields}
    return found if asked is None else [one for one in found if _plain_name(one.field.name) in asked]


def _plain_name(name: str) -> str:
    """A field's name with blanks, as it is asked for; files and people write underscores too."""
    return name.replace("_", " ")


def require_asked(pages: Iterable[Page], fields: Iterable[str] | None) -> None:
    """Refuse pages that ask nothing, pages without a word, and names of fields that no page has."""
    pages = list(pages)
    names = {one.field.name for page in pages for one in asked_of(page)}
    if not names:
        raise DataError(
            "these pages have no answers to hold a model against: neither `facts['fields']` (SROIE, CORD, rows of "
            "{lines, fields}), nor links (FUNSD), nor `facts['questions']` with answers (DocVQA, LayTextLLM)"
        )
    if not any(page.lines for page in pages):
        raise DataError(
            "these pages have questions and not one line of text: a model has nothing to read there. DocVQA's own JSON is "
            "so; read the pages by OCR, and make rows of {lines, questions} of both"
        )
    for name in fields or ():
        if _plain_name(name) not in map(_plain_name, names):
            raise UnknownNameError("field", name, names)


def evidence(page: Page, golds: tuple[str, ...]) -> list[int]:
    """The lines that hold an answer; of one over several lines, those that are part of it."""
    for gold in golds:
        if found := lines_with(page, gold):
            return found
    return [
        number
        for number, line in enumerate(page.lines)
        if len(own := plain(line.text)) >= SHORTEST and any(own in plain(gold) for gold in golds)
    ]


def relative_boxes(page: Page, lines: Iterable[int]) -> list[Box]:
    """The boxes of lines in shares of their page, so that pages in different units are compared."""
    extent = page.extent
    boxes: list[Any] = [page.lines[number].box for number in lines]
    return [box.scaled(1 / extent[0], 1 / extent[1]) for box in boxes if box is not None and extent is not None]
