"""A page of a PDF, from its text layer."""

from __future__ import annotations

from typing import Any

from vertebra.errors import DataError
from vertebra.page.page import Page
from vertebra.page.pdf.characters import characters
from vertebra.page.pdf.grouping import lines
from vertebra.reading import reading


def text_page(pdf_page: Any, number: int, name: str | None = None) -> Page:
    """The text layer of a page: lines of words in points from the top left of the page as it is shown."""
    with reading(f"the text of page {number} cannot be read", "leave the page out (--pages)", error=DataError):
        size = pdf_page.get_size()
        found = characters(pdf_page)
        hidden = int((~found.visible & ~found.generated).sum())
        notes = (f"{hidden} characters are invisible: an OCR layer behind a picture, most often",) if hidden else ()
        return Page.of(
            lines(found, inside=size), size=size, unit="point", on_bad="repair", number=number, name=name, notes=notes
        )
