"""`vertebra doc ask` and `doc extract`: answers of a model about a document, with their places, printed, as JSON, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vertebra.cli.asking import Device, Dtype, Name, Token
from vertebra.cli.paths import PATH

File = Annotated[Path, typer.Argument(help="A PDF, a picture, or pages in a format such as hOCR, ALTO or FUNSD.")]
Pages = Annotated[str | None, typer.Option(help="Numbers of pages: 1,3-5; all by default.")]
Ocr = Annotated[str, typer.Option(help="The OCR engine: auto, rapidocr, tesseract; none: no OCR.")]
Size = Annotated[str | None, typer.Option(help="The page's WIDTHxHEIGHT in pixels, for formats without.")]
Picture = Annotated[Path | None, typer.Option(help="The page's picture, for its size and for drawing.", **PATH)]
Password = Annotated[str | None, typer.Option(help="Of an encrypted PDF.")]
Across = Annotated[
    list[str] | None, typer.Option(help="A field whose text may run over the ends of lines; repeatable.")
]
Tokens = Annotated[int | None, typer.Option(min=1, help="Tokens that one value may take.")]
Seconds = Annotated[float | None, typer.Option(min=0.001, help="Time for all answers; what is found by then is kept.")]
Calibration = Annotated[Path | None, typer.Option(help="A file of `doc eval --calibrate`.", **PATH)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Html = Annotated[Path | None, typer.Option(help="Write a page that draws each answer on its page.")]
Draw = Annotated[Path | None, typer.Option(help="Draw the answers on the page as a PNG; of several, numbered.")]


def ask(
    model: Name,
    file: File,
    question: Annotated[list[str], typer.Argument(help="What to ask; each in quotes.")],
    free: Annotated[bool, typer.Option("--free", help="Let the model write the answer; it then has no place.")] = False,
    across: Annotated[bool, typer.Option("--across", help="Answers may run over the ends of lines.")] = False,
    pages: Pages = None,
    ocr: Ocr = "auto",
    size: Size = None,
    image: Picture = None,
    password: Password = None,
    max_new_tokens: Tokens = None,
    seconds: Seconds = None,
    calibration: Calibration = None,
    dtype: Dtype = None,
    device: Device = None,
    token: Token = None,
    json: Json = False,
    html: Html = None,
    draw: Draw = None,
) -> None:
    """Ask a model about a document. The answer is copied from its words, so that it can be pointed at."""
    from vertebra.backbone.registry import require_name

    require_name(model)  # before torch is imported for it
    given = _Given(file, pages, ocr, size, image, password)
    given.read()
    from vertebra.cli.asking import load
    from vertebra.documents.extract import ask as asked

    loaded = load(model, dtype=dtype, device=device, token=token)
    found = asked(
        loaded, given.document, question, free=free, across=across, images=given.pictures(loaded),
        max_new_tokens=max_new_tokens, seconds=seconds, calibration=calibration,
    )  # fmt: skip
    _shown(found, given, json=json, html=html, draw=draw)


def extract(
    model: Name,
    file: File,
    schema: Annotated[Path, typer.Option(help='A JSON schema, or names with kinds: {"total": "number"}.', **PATH)],
    across: Across = None,
    free: Annotated[
        list[str] | None, typer.Option(help="A field that the model writes itself; it then has no place. Repeatable.")
    ] = None,
    least: Annotated[float, typer.Option(min=0, max=1, help="Leave out values of a lower confidence.")] = 0.0,
    pages: Pages = None,
    ocr: Ocr = "auto",
    size: Size = None,
    image: Picture = None,
    password: Password = None,
    max_new_tokens: Tokens = None,
    max_list_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens that a list may take.")] = None,
    seconds: Seconds = None,
    calibration: Calibration = None,
    dtype: Dtype = None,
    device: Device = None,
    token: Token = None,
    json: Json = False,
    html: Html = None,
    draw: Draw = None,
) -> None:
    """Extract what a schema lists from a document: values copied from its words, with places and confidences."""
    from vertebra.backbone.registry import require_name

    require_name(model)
    from vertebra.documents.schema import fields_of

    fields_of(schema)  # what is wrong with it comes before everything that takes time
    given = _Given(file, pages, ocr, size, image, password)
    given.read()
    from vertebra.cli.asking import load
    from vertebra.documents.extract import extract as extracted

    loaded = load(model, dtype=dtype, device=device, token=token)
    found = extracted(
        loaded, given.document, schema, images=given.pictures(loaded), across=tuple(across or ()), free=tuple(free or ()),
        least=least, max_new_tokens=max_new_tokens, max_list_tokens=max_list_tokens, seconds=seconds,
        calibration=calibration,
    )  # fmt: skip
    _shown(found, given, json=json, html=html, draw=draw)


class _Given:
    """The document of a call, and its pictures."""

    def __init__(
        self, file: Path, pages: str | None, ocr: str, size: str | None, image: Path | None, password: str | None
    ) -> None:
        self.file, self.pages, self.ocr, self.size, self.image, self.password = file, pages, ocr, size, image, password
        self.document: Any = None

    def read(self) -> None:
        from vertebra.cli.doc_files import numbers_of, size_of
        from vertebra.page.reading import read_document

        self.document = read_document(
            self.file, numbers_of(self.pages), ocr="auto" if self.ocr == "none" else self.ocr,
            when="never" if self.ocr == "none" else "needed", size=size_of(self.size), image=self.image,
            password=self.password, on_bad="repair",
        )  # fmt: skip

    def picture(self, page: Any) -> Any:
        """The picture of a page, where there is one."""
        from vertebra.cli.doc_files import picture_of

        return self.image or page.image or picture_of(self.file, page, self.password)

    def pictures(self, model: Any) -> dict[int, Any]:
        """For a model that looks at pages."""
        if not model.record.get("page", {}).get("image"):
            return {}
        return self.all_pictures()

    def all_pictures(self) -> dict[int, Any]:
        found = {page.number: self.picture(page) for page in self.document}
        return {number: picture for number, picture in found.items() if picture is not None}


def _shown(found: Any, given: _Given, *, json: bool, html: Path | None, draw: Path | None) -> None:
    from vertebra.cli.output import console

    written = []
    if html is not None:
        from vertebra.documents.drawing import write_extraction_page

        written.append(write_extraction_page(found, html, given.all_pictures()))
    if draw is not None:
        from vertebra.documents.drawing import write_extraction_picture

        for page in found.document:
            path = draw.with_stem(f"{draw.stem}-{page.number}") if len(found.document) > 1 else draw
            written.append(write_extraction_picture(found, page, path, given.picture(page)))
    if json:
        from vertebra.cli.output import print_json

        print_json(found.to_dict())
        return
    _print(found)
    for path in written:
        console().print(f"written to {path}", soft_wrap=True)


def _print(found: Any) -> None:
    import json as codec

    from rich.text import Text

    from vertebra.cli.output import console, table

    out = console()
    made = table("field", "value", "on the page", "page", "lines", "confidence", right=("page", "lines", "confidence"))
    for path, one in found.leaves():
        absent = one.value is None or one.value == []
        value = (
            Text("absent", "dim")
            if absent
            else Text(one.value if isinstance(one.value, str) else codec.dumps(one.value))
        )
        lines = ",".join(map(str, one.lines))
        page = "" if one.page is None else str(one.page)
        made.add_row(Text(path), value, Text(one.text or ""), page, lines, f"{one.confidence:.2f}")
    out.print(made)
    for error in found.errors:
        out.print(Text(error, "yellow"), soft_wrap=True)
