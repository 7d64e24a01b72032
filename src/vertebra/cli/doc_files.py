"""What the commands about documents read alike: sizes, numbers of pages, the picture of a PDF's page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


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
            found += range(int(first), int(last or first) + 1)
    except ValueError:
        raise typer.BadParameter(f"--pages {given!r:.40}: expected numbers, as in 1,3-5") from None
    return found


def picture_of(file: Path, page: Any, password: str | None) -> Any:
    """The picture of a PDF's page; of other files none."""
    if file.suffix.lower() != ".pdf":
        return None
    from vertebra.page.pdf.opening import opened_pdf, pages_of, rendered
    from vertebra.page.reading import DPI, MOST_PIXELS

    with opened_pdf(file, password) as document:
        for _, found in pages_of(document, file, [page.number]):
            return rendered(found, DPI, MOST_PIXELS)
    return None
