"""Arms: the same questions about the same pages, with one thing changed.

no-boxes         no line has a place: what layout is worth
no-pixels        no picture of the page
boxes-shuffled   every line has the place of another one: whether places are read at all
lines-shuffled   lines in random order, places kept: whether the order is all that was read
written          answers are the model's own writing, not copied: what copying is worth
ocr[=ENGINE]     the page as OCR reads its picture, in place of its own lines
NAME=MODEL       another model, or the same one trained otherwise
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vertebra.errors import DataError, UnknownNameError
from vertebra.evaluate.listed import listed
from vertebra.page.numbered import facts_without_lines
from vertebra.page.ocr.engines import engine, read_picture
from vertebra.page.page import Line, Page

MODEL = "model"
"""The arm that all others are compared with."""


@dataclass(frozen=True, kw_only=True)
class DocumentArm:
    """One way to ask every question."""

    name: str
    model: str | None = None
    """Another model; None: the one that is evaluated."""
    change: Callable[[Page, random.Random], Page] | None = None
    """What becomes of a page."""
    pixels: bool = True
    read_anew: bool = False
    """Its lines are not those of the data."""
    as_given: bool = False
    """Lines stay in the order in which they are given, whatever the model's own order is."""
    written: bool = False
    """The model writes answers as it likes: they may stand nowhere, and point at nothing."""


def _without_boxes(page: Page, _: random.Random) -> Page:
    return replace(page, lines=tuple(Line(line.text) for line in page.lines))


def _boxes_shuffled(page: Page, chance: random.Random) -> Page:
    """The places go round among the lines; words, whose places are inside of lines, are left out."""
    boxes = [line.box for line in page.lines]
    chance.shuffle(boxes)
    return replace(page, lines=tuple(Line(line.text, box) for line, box in zip(page.lines, boxes, strict=True)))


def _lines_shuffled(page: Page, chance: random.Random) -> Page:
    numbers = list(range(len(page.lines)))
    chance.shuffle(numbers)
    return page.of_lines(numbers)


def _by_ocr(name: str) -> Callable[[Page, random.Random], Page]:
    by = engine(name)

    def read(page: Page, _: random.Random) -> Page:
        if page.image is None:
            raise DataError(
                f"page {page.number} ({page.name}) has no picture for the arm `ocr`; give the folder of pictures (--images)"
            )
        found = read_picture(page.image, by)
        return replace(
            found, number=page.number, name=page.name, facts={**facts_without_lines(page.facts), **found.facts}
        )

    return read


PLAIN = {
    "no-boxes": DocumentArm(name="no-boxes", change=_without_boxes),
    "no-pixels": DocumentArm(name="no-pixels", pixels=False),
    "boxes-shuffled": DocumentArm(name="boxes-shuffled", change=_boxes_shuffled, as_given=True),
    "lines-shuffled": DocumentArm(name="lines-shuffled", change=_lines_shuffled, as_given=True),
    "written": DocumentArm(name="written", written=True),
}
KINDS = (*PLAIN, "ocr", "ocr=ENGINE", "NAME=MODEL")


def document_arms(given: str | Sequence[str]) -> tuple[DocumentArm, ...]:
    """The arms that a list names (`no-boxes,ocr`), the model itself first."""
    return listed(given, DocumentArm(name=MODEL), _arm)


def _arm(text: str) -> DocumentArm:
    name, sign, value = text.partition("=")
    if text in PLAIN:
        return PLAIN[text]
    if name == "ocr":
        return DocumentArm(name=text.replace("=", "-"), change=_by_ocr(value or "auto"), read_anew=True)
    if sign and name and value:
        return DocumentArm(name=name, model=value)
    raise UnknownNameError("arm", text, KINDS)
