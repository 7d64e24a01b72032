"""The formats, a row each, in the order in which a file is tried; reading one, and writing one.

read_pages("scan.hocr")                              the format is seen from the content
read_pages("form.json", image="form.png")            a format without a page size asks for one
write_pages(document, "page.xml", "page")
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vertebra.errors import DataError, UnknownNameError
from vertebra.folders import write_file
from vertebra.page.checking import OnBad
from vertebra.page.formats.decoding import text_of_file
from vertebra.page.formats.source import PageSource
from vertebra.page.page import Document, Page, numbered
from vertebra.page.units import Size
from vertebra.reading import json_of, reading


@dataclass(frozen=True)
class PageFormat:
    """A row: its module, the shape of its files, what it is called."""

    module: str
    shape: str
    does: str

    @property
    def code(self) -> Any:
        return importlib.import_module(f"vertebra.page.formats.{self.module}")


FORMATS: dict[str, PageFormat] = {
    "docling": PageFormat("docling", "json", "Docling's document"),
    "funsd": PageFormat("funsd", "json", "FUNSD: forms with labels and links"),
    "cord": PageFormat("cord", "json", "CORD v2: receipts with categories"),
    "docvqa": PageFormat("docvqa", "json", "DocVQA: questions about pages"),
    "microsoft-read": PageFormat("microsoft", "json", "Microsoft Read, the text beside DocVQA"),
    "doctr": PageFormat("doctr", "json", "docTR's export"),
    "vertebra": PageFormat("own", "json", "our own: everything that a page has"),
    "laytextllm": PageFormat("laytextllm", "json", "LayTextLLM: samples with one question"),
    "paddle": PageFormat("paddle", "json", "PaddleOCR 3 and 2"),
    "rapidocr": PageFormat("rapid", "json", "RapidOCR"),
    "doclayllm": PageFormat("doclayllm", "json", "DocLayLLM: lines with boxes"),
    "alto": PageFormat("alto", "xml", "ALTO 2 to 4"),
    "page": PageFormat("pagexml", "xml", "PAGE-XML"),
    "hocr": PageFormat("hocr", "text", "hOCR"),
    "tesseract": PageFormat("tsv", "text", "tesseract's TSV"),
    "sroie": PageFormat("sroie", "text", "SROIE: quads and text"),
}
"""The formats by name."""
_ROOT = re.compile(r"<(?:[\w.-]+:)?([A-Za-z_][\w.-]*)[\s>/]")


def format_of(name: str) -> PageFormat:
    if name not in FORMATS:
        raise UnknownNameError("format of pages", name, FORMATS)
    return FORMATS[name]


def read_pages(
    source: Any,
    format: str | None = None,
    *,
    size: Size | None = None,
    image: Any = None,
    on_bad: OnBad = "refuse",
) -> Document:
    """The pages of a file (or of parsed JSON) in any of the formats; `.jsonl` holds one value a line, `.gz` is opened.

    `size`: the page's in pixels, or `image`: its picture, for formats that do not hold it. `on_bad`: refuse or repair
    boxes that cannot be.
    """
    path = Path(source) if isinstance(source, (str, Path)) else None
    where = f"`{path}`" if path else "the input"
    given = PageSource(None, where, size or _size_of(image), image, on_bad, path)
    if path is None:
        return Document(numbered(_read(replace(given, content=source), format), where), None)
    text, notes = text_of_file(path)
    given = replace(given, notes=notes)
    if ".jsonl" in path.suffixes:
        return Document(tuple(_numbered(_json_lines(given, text, format))), path.name)
    if given.image is None:
        from vertebra.page.formats.sroie import image_of

        found = image_of(path)
        given = replace(given, image=found, size=given.size or _size_of(found))
    return Document(numbered(_read(replace(given, content=text), format), where), path.name)


def _json_lines(given: PageSource, text: str, format: str | None) -> Iterator[Page]:
    for number, row in enumerate(text.split("\n"), 1):  # `splitlines` would cut texts at U+2028 and others of its kind
        if row.strip():
            with reading(f"line {number} of {given.where} is no JSON", "mend it, or take it out", error=DataError):
                value = json_of(row)
            notes = given.notes if "\ufffd" in row else ()
            where = f"line {number} of {given.where}"
            yield from _read(replace(given, content=value, where=where, notes=notes), format)


def _numbered(pages: Iterable[Page]) -> Iterator[Page]:
    for number, page in enumerate(pages, 1):
        yield replace(page, number=number)


def _read(given: PageSource, format: str | None) -> list[Page]:
    name = format or seen(given.content)
    if name is None:
        raise DataError(f"{given.where} is in no known format of pages; name it with `format=`: {', '.join(FORMATS)}")
    row = format_of(name)
    with reading(f"{given.where} cannot be read as {name}", "mend it, or name its format", error=DataError):
        content = json_of(given.content) if row.shape == "json" and isinstance(given.content, str) else given.content
        pages: list[Page] = row.code.read(replace(given, content=content))
    if not pages:
        raise DataError(f"{given.where} holds no page as {name} has them")
    return pages


def seen(content: Any) -> str | None:
    """The first format that a content looks like."""
    if isinstance(content, str):
        start = content.lstrip("\ufeff \t\r\n")[:1]
        if start in ("{", "["):
            try:
                content = json_of(content)
            except ValueError as error:
                raise DataError(f"the file begins as JSON does and is none: {error}") from error
        else:
            root = next((found[1] for found in _ROOT.finditer(content[:20000])), "") if start == "<" else ""
            tries = {"xml": root, "text": content}
            return next(
                (n for n, row in FORMATS.items() if row.shape in tries and row.code.fits(tries[row.shape])), None
            )
    return next((n for n, row in FORMATS.items() if row.shape == "json" and row.code.fits(content)), None)


def _size_of(image: Any) -> Size | None:
    if image is None:
        return None
    if hasattr(image, "size") and not isinstance(image, (str, Path)):
        return image.size
    from vertebra.page.pictures import size_of

    return size_of(image)


def to_text(document: Document | Page, format: str) -> str:
    """Pages in a format, as the text of its file."""
    pages = (document,) if isinstance(document, Page) else document.pages
    text: str = format_of(format).code.write(pages)
    return text


def write_pages(document: Document | Page, path: str | Path, format: str = "vertebra") -> Path:
    """Write pages to a file, whole or not at all."""
    return write_file(Path(path), to_text(document, format))
