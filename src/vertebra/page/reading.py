"""A document, whatever its file is: a PDF, a picture, or pages in one of the formats.

read_document("invoice.pdf")                 the text layer; OCR for pages where it is absent or garbage
for page in stream_pages("500-pages.pdf"):   one page at a time, in flat memory
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vertebra import log
from vertebra.errors import DataError
from vertebra.page.checking import OnBad
from vertebra.page.formats.registry import read_pages
from vertebra.page.ocr.engines import SECONDS, OcrEngine, engine, installed, read_picture
from vertebra.page.page import Document, Page
from vertebra.page.pdf.forms import with_fields
from vertebra.page.pdf.opening import is_pdf, numbers_within, opened_pdf, pages_of, rendered
from vertebra.page.pdf.quality import why_garbage, why_scan
from vertebra.page.pdf.reading import text_page
from vertebra.page.pictures import is_picture, opened, pages_in
from vertebra.page.units import Size

DPI = 200.0
MOST_PIXELS = 20_000_000
"""Of a rendered page; A4 at 200 dpi has 3.9 million."""
When = Literal["needed", "always", "never"]


@dataclass(frozen=True, kw_only=True)
class PageReading:
    """How a file is read."""

    format: str | None = None
    """Of a file of pages; else it is seen from the content."""
    ocr: str | OcrEngine = "auto"
    """`rapidocr`, `tesseract`, an engine of one's own, or the first that is installed."""
    when: When = "needed"
    """OCR where the text layer is absent or garbage; always; never."""
    password: str | None = None
    size: Size | None = None
    image: Any = None
    on_bad: OnBad = "refuse"
    seconds: float = SECONDS
    """Time that OCR has for a page."""
    dpi: float = DPI


def read_document(path: str | Path, pages: Iterable[int] | None = None, **how: Any) -> Document:
    """All pages of a file, or those of some numbers, each once; options as `PageReading` lists them."""
    return Document(tuple(stream_pages(path, pages, **how)), Path(path).name)


def stream_pages(path: str | Path, pages: Iterable[int] | None = None, **how: Any) -> Iterator[Page]:
    """The same, one page at a time."""
    asked = PageReading(**how)
    path = Path(path)
    numbers = None if pages is None else list(dict.fromkeys(pages))
    if not path.is_file():
        raise DataError(f"`{path}` is no file; expected a PDF, a picture, or a file of pages")
    head = head_of(path)
    if is_pdf(path, head):
        _require_no_format(asked, path, "a PDF")
        yield from _pdf(path, numbers, asked)
    elif is_picture(path, head):
        _require_no_format(asked, path, "a picture")
        yield from _pictures(path, numbers, asked)
    else:
        found = read_pages(path, asked.format, size=asked.size, image=asked.image, on_bad=asked.on_bad)
        yield from _numbered(found, numbers, path)


def head_of(path: Path) -> bytes:
    """How a file begins: by that it is recognised."""
    with open(path, "rb") as file:
        return file.read(1024)


def _numbered(found: Iterable[Page], numbers: list[int] | None, path: Path) -> Iterator[Page]:
    document = Document(tuple(found), str(path))
    yield from document if numbers is None else map(document.page, numbers)


def _require_no_format(asked: PageReading, path: Path, what: str) -> None:
    if asked.format is not None:
        raise DataError(
            f"`{path}` is {what}, which is in no format of pages; leave `format=` ({asked.format!r:.40}) out"
        )


def _engine(asked: PageReading) -> OcrEngine:
    return engine(asked.ocr) if isinstance(asked.ocr, str) else asked.ocr


def _pictures(path: Path, numbers: list[int] | None, asked: PageReading) -> Iterator[Page]:
    """The pages of a picture, one at a time: a scanner's TIFF has many."""
    if asked.when == "never":
        raise DataError(f"`{path}` is a picture, and without OCR it has no text; allow it (--when needed)")
    by, count = _engine(asked), pages_in(path)
    for number in numbers_within(numbers, count, path):
        page = read_picture(opened(path, number=number), by, seconds=asked.seconds)
        yield replace(page, number=number, name=path.name)


def _pdf(path: Path, numbers: list[int] | None, asked: PageReading) -> Iterator[Page]:
    by: OcrEngine | None = None
    with opened_pdf(path, asked.password) as document:
        for number, pdf_page in pages_of(document, path, numbers):
            page = text_page(pdf_page, number, path.name)
            reason = "OCR was asked for" if asked.when == "always" else why_garbage(page) or why_scan(pdf_page, page)
            page = with_fields(pdf_page, page)  # only now: a scan with filled fields on it is a scan
            if reason is None:
                yield page
                continue
            if asked.when == "never" or (asked.ocr == "auto" and not installed()):
                how = "OCR is off" if asked.when == "never" else "no OCR is installed: pip install 'vertebra[ocr]'"
                log.warn(f"page {number} of {path.name}: {reason}, and {how}")
                yield replace(page, notes=(*page.notes, f"{reason}, and {how}"))
                continue
            by = by or _engine(asked)
            yield _by_ocr(pdf_page, page, by, reason, asked)


def _by_ocr(pdf_page: Any, page: Page, by: OcrEngine, reason: str, asked: PageReading) -> Page:
    """The page read from its picture, in points like all pages of a PDF."""
    picture = rendered(pdf_page, asked.dpi, MOST_PIXELS)
    found = read_picture(picture, by, seconds=asked.seconds)
    assert page.size is not None
    size = page.size if found.facts.get("turned", 0) % 180 == 0 else page.size[::-1]
    scale = picture.width * 72 / page.size[0]
    made = replace(found.to("pixel", size=size), unit="point", size_unit="point", dpi=scale)
    return replace(made, number=page.number, name=page.name, notes=(f"read by {by.name}: {reason}", *found.notes))
