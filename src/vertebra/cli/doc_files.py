"""What the commands about documents read alike: sizes, numbers of pages, the picture of a PDF's page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

MOST_PAGES = 100_000
"""Of a document: a number beyond is a slip."""


def require_targets(*paths: Path | None) -> None:
    """Refuse what cannot be written before the work whose result it is to hold; folders for it are made."""
    from vertebra.folders import require_place

    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise typer.BadParameter(f"`{path}` is a folder; expected the name of a file to write")
        require_place(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)


def size_of(given: str | None) -> tuple[float, float] | None:
    if given is None:
        return None
    try:
        width, height = (float(part) for part in given.lower().replace("×", "x").split("x"))
    except ValueError:
        raise typer.BadParameter(f"--size {given!r:.40}: expected WIDTHxHEIGHT, as in 620x877") from None
    return width, height


def numbers_of(given: str | None) -> list[int] | None:
    if given is None:
        return None
    found: list[int] = []
    try:
        for part in given.split(","):
            first, _, last = part.partition("-")
            some = range(int(first), int(last or first) + 1)
            if not some or some[0] < 1 or some[-1] > MOST_PAGES:
                raise ValueError
            found += some
    except ValueError:
        raise typer.BadParameter(
            f"--pages {given!r:.40}: expected numbers from 1 to {MOST_PAGES:,}, as in 1,3-5"
        ) from None
    return found


def picture_of(file: Path, page: Any, password: str | None) -> Any:
    """The picture of a PDF's page; of other files none."""
    from vertebra.page.pdf.opening import is_pdf, opened_pdf, pages_of, rendered
    from vertebra.page.reading import DPI, MOST_PIXELS, head_of

    if not is_pdf(file, head_of(file)):
        return None
    with opened_pdf(file, password) as document:
        for _, found in pages_of(document, file, [page.number]):
            return rendered(found, DPI, MOST_PIXELS)
    return None
