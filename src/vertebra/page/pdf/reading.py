"""A PDF's pages, from their text layer, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vertebra.errors import DataError
from vertebra.page.page import Page
from vertebra.page.pdf.characters import characters
from vertebra.page.pdf.grouping import lines
from vertebra.page.pdf.opening import opened_pdf, pages_of
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


def pdf_pages(path: str | Path, numbers: Iterable[int] | None = None, password: str | None = None) -> Iterator[Page]:
    """The text layers of a PDF's pages as a stream: memory holds one page."""
    with opened_pdf(path, password) as document:
        for number, page in pages_of(document, path, numbers):
            yield text_page(page, number, Path(path).name)
