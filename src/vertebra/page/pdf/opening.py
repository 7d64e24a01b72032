"""PDF files opened, with what is wrong with them in our words; a page after another, each closed again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vertebra import log
from vertebra.errors import DataError, MissingPartError

PASSWORD = 4
_REASONS = {
    2: "it cannot be opened",
    3: "it is no PDF, or is damaged or cut off",
    5: "its protection is unknown",
    6: "a page is damaged",
}


def is_pdf(path: str | Path, head: bytes) -> bool:
    """Whether a file that begins so is a PDF, whatever it is called."""
    return b"%PDF-" in head or Path(path).suffix.lower() == ".pdf"


@contextmanager
def opened_pdf(path: str | Path, password: str | None = None) -> Iterator[Any]:
    """A PDF as pypdfium2's document, closed at the end."""
    try:
        import pypdfium2
    except ImportError:
        raise MissingPartError("reading PDF files", "pypdfium2", "doc") from None
    if not Path(path).is_file():
        raise DataError(f"`{path}` is no file; expected a PDF")
    try:
        found = pypdfium2.PdfDocument(path, password=password)
    except pypdfium2.PdfiumError as error:
        code = _why(path, password)
        if code == PASSWORD:
            wrong = "the password is wrong" if password else "it is encrypted"
            raise DataError(f"`{path}` cannot be read: {wrong}; give `password=` (--password)") from error
        raise DataError(
            f"`{path}` cannot be read: {_REASONS.get(code or 0, 'it is damaged')}; save it again"
        ) from error
    try:
        if len(found) == 0:
            raise DataError(f"`{path}` has no pages")
        try:
            found.init_forms()  # else what was filled into a form is neither drawn nor known
        except pypdfium2.PdfiumError:
            log.warn(f"`{path}` has a form that cannot be read; its pages are read without what was filled in")
        yield found
    finally:
        found.close()


def _why(path: str | Path, password: str | None) -> int | None:
    """What pdfium has against a file. It keeps the code of the last failure, and some failures set none: so one of a known
    code (no PDF) comes first, lest a file without pages be called encrypted because another one was."""
    import pypdfium2

    code = None
    for given in (b"no PDF", path):
        try:
            pypdfium2.PdfDocument(given, password=password).close()
        except pypdfium2.PdfiumError as error:
            code = getattr(error, "err_code", None)
    return code


def pages_of(document: Any, path: Any, numbers: Iterable[int] | None = None) -> Iterator[tuple[int, Any]]:
    """(number from 1 on, page), one at a time: the one before is closed, so that memory stays flat."""
    import pypdfium2

    for number in numbers_within(numbers, len(document), path):
        try:
            page = document[number - 1]
        except pypdfium2.PdfiumError as error:
            raise DataError(
                f"page {number} of `{path}` is damaged; leave it out (--pages), or save the file again"
            ) from error
        try:
            yield number, page
        finally:
            page.close()


def numbers_within(numbers: Iterable[int] | None, count: int, path: Any) -> Iterator[int]:
    """The numbers of the pages that are asked for, all by default; one that is not there is refused."""
    for number in range(1, count + 1) if numbers is None else numbers:
        if not 1 <= number <= count:
            raise DataError(f"there is no page {number} in `{path}`; its pages are 1 to {count}")
        yield number


def rendered(page: Any, dpi: float, most: int) -> Any:
    """A page as a picture; where `dpi` would give more pixels than `most`, as many as allowed."""
    width, height = page.get_size()
    scale = dpi / 72
    scale = min(scale, (most / (width * height)) ** 0.5)
    return page.render(scale=scale).to_pil().convert("RGB")
