"""`vertebra doc`: `read` makes a PDF, a picture or a file of pages into lines with places; printed, as JSON, in another
format, drawn. What asks a model about them stands in `doc_asking` and `doc_evaluation`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vertebra.cli.doc_asking import ask, extract
from vertebra.cli.doc_evaluation import evaluate
from vertebra.cli.doc_files import numbers_of, picture_of, require_targets, size_of

_DOES = "Read documents (PDF files, scans, files of pages), ask about them, extract from them."
app = typer.Typer(add_completion=False, no_args_is_help=True, help=_DOES)
app.command()(ask)
app.command()(extract)
app.command("eval")(evaluate)


@app.callback()
def doc() -> None:
    """Read documents: PDF files, scans, files of pages; ask about them, extract from them."""


@app.command()
def read(
    file: Annotated[Path, typer.Argument(help="A PDF, a picture, or pages in a format such as hOCR, ALTO or FUNSD.")],
    pages: Annotated[str | None, typer.Option(help="Numbers of pages: 1,3-5; all by default.")] = None,
    ocr: Annotated[str, typer.Option(help="The OCR engine: auto, rapidocr, tesseract; none: no OCR.")] = "auto",
    always: Annotated[bool, typer.Option("--always", help="OCR even where a text layer is there.")] = False,
    format: Annotated[
        str | None, typer.Option(help="The format of a file of pages, where it is not recognised.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="The page's WIDTHxHEIGHT in pixels, for formats without.")] = None,
    image: Annotated[Path | None, typer.Option(help="The page's picture, for its size and for --draw.")] = None,
    order: Annotated[str, typer.Option(help="Reading order: given, top, columns.")] = "given",
    unit: Annotated[str | None, typer.Option(help="Unit of the boxes: pixel, point, relative, thousand.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse boxes that cannot be, instead of mending them.")
    ] = False,
    password: Annotated[str | None, typer.Option(help="Of an encrypted PDF.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time that OCR has for a page.")] = 300.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    to: Annotated[str | None, typer.Option(help="Print it in another format: hocr, alto, page, tesseract …")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write it there instead of printing it (vertebra's JSON, or --to).")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(help="Draw the page with its boxes as a PNG; of several, numbered.")
    ] = None,
) -> None:
    """Read a document as lines of text with their places: the text layer of a PDF, or OCR where there is none."""
    from dataclasses import replace

    from vertebra.page.formats.registry import to_text, write_pages
    from vertebra.page.order import ORDERS
    from vertebra.page.reading import read_document

    _known("--order", order, ORDERS)
    if always and ocr == "none":
        raise typer.BadParameter("--always reads by OCR, and --ocr none allows none; give one of the two")
    require_targets(out, draw)
    settings: dict[str, Any] = {
        "format": format, "size": size_of(size), "image": image, "password": password, "seconds": seconds,
        "on_bad": "refuse" if strict else "repair",
        "ocr": "auto" if ocr == "none" else ocr,
        "when": "never" if ocr == "none" else "always" if always else "needed",
    }  # fmt: skip
    found = read_document(file, numbers_of(pages), **settings)
    made = tuple(page.in_order(order) for page in found)  # type: ignore[arg-type]
    if unit is not None:
        made = tuple(page.to(unit, dpi=page.dpi or 72) for page in made)  # type: ignore[arg-type]
    document = replace(found, pages=made)
    if draw is not None:
        _draw(document, file, draw, image, password)
    if out is not None:
        write_pages(document, out, to or "vertebra")
        _print([f"written to {out}"])
    elif json or to is not None:
        print(to_text(document, to or "vertebra"), end="")
    else:
        _show(document)


def _known(option: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise typer.BadParameter(f"{option} {given!r:.40}: expected one of {', '.join(known)}")


def _draw(document: Any, file: Path, draw: Path, image: Path | None, password: str | None) -> None:
    from vertebra.page.drawing import write_drawn

    several = len(document) > 1
    for page in document:
        path = draw.with_stem(f"{draw.stem}-{page.number}") if several else draw
        write_drawn(page, path, image or page.image or picture_of(file, page, password))


def _show(document: Any) -> None:
    from rich.text import Text

    from vertebra.cli.output import console, table

    out = console()
    for page in document:
        size = "no size" if page.size is None else f"{page.size[0]:g} × {page.size[1]:g} {page.size_unit}"
        facts = f"  {size}, {len(page.lines)} lines, boxes in {page.unit}"
        out.print(Text.assemble((f"page {page.number}", "bold"), facts))
        for note in page.notes:
            out.print(Text(note, "yellow"), soft_wrap=True)
        shown = table(
            "line", "left", "top", "right", "bottom", "text", right=("line", "left", "top", "right", "bottom")
        )
        for number, line in enumerate(page.lines):
            box = ("", "", "", "") if line.box is None else tuple(f"{side:.4g}" for side in line.box)
            shown.add_row(str(number), *box, Text(line.text))
        out.print(shown)


def _print(lines: list[str]) -> None:
    from vertebra.cli.output import console

    for line in lines:
        console().print(line, soft_wrap=True)
