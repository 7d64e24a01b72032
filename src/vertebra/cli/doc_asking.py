"""`vertebra doc ask` and `doc extract`: answers of a model about a document, with their places, printed, as JSON, as a page."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from vertebra.cli.asking import Device, Dtype, Name, Token
from vertebra.cli.paths import PATH


@dataclass(frozen=True, kw_only=True)
class DocumentAndModel:
    """A document and the model that is asked about it: what `ask` and `extract` are both given."""

    model: Name
    file: Annotated[Path, typer.Argument(help="A PDF, a picture, or pages in a format such as hOCR, ALTO or FUNSD.")]
    pages: Annotated[str | None, typer.Option(help="Numbers of pages: 1,3-5; all by default.")] = None
    ocr: Annotated[str, typer.Option(help="The OCR engine: auto, rapidocr, tesseract; none: no OCR.")] = "auto"
    size: Annotated[str | None, typer.Option(help="The page's WIDTHxHEIGHT in pixels, for formats without.")] = None
    image: Annotated[Path | None, typer.Option(help="The page's picture, for its size and for drawing.", **PATH)] = None
    password: Annotated[str | None, typer.Option(help="Of an encrypted PDF.")] = None
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens that one value may take.")] = None
    seconds: Annotated[
        float | None, typer.Option(min=0.001, help="Time for all answers; what is found by then is kept.")
    ] = None
    calibration: Annotated[Path | None, typer.Option(help="A file of `doc eval --calibrate`.", **PATH)] = None
    dtype: Dtype = None
    device: Device = None
    token: Token = None
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
    html: Annotated[Path | None, typer.Option(help="Write a page that draws each answer on its page.")] = None
    draw: Annotated[Path | None, typer.Option(help="Draw the answers on the page as a PNG; of several, numbered.")] = (
        None
    )

    @cached_property
    def document(self) -> Any:
        from vertebra.cli.doc_files import numbers_of, size_of
        from vertebra.page.reading import read_document

        return read_document(
            self.file, numbers_of(self.pages), ocr="auto" if self.ocr == "none" else self.ocr,
            when="never" if self.ocr == "none" else "needed", size=size_of(self.size), image=self.image,
            password=self.password, on_bad="repair",
        )  # fmt: skip

    def loaded(self) -> tuple[Any, dict[str, Any]]:
        """The model, and what answering is given; the document is read before torch is imported for the model."""
        from vertebra.backbone.registry import require_name
        from vertebra.cli.doc_files import require_targets

        require_name(self.model)
        require_targets(self.html, self.draw)
        assert self.document is not None
        from vertebra.cli.asking import load

        model = load(self.model, dtype=self.dtype, device=self.device, token=self.token)
        looks = model.record.get("page", {}).get("image")
        return model, {
            "images": self.pictures() if looks else {},
            "max_new_tokens": self.max_new_tokens,
            "seconds": self.seconds,
            "calibration": self.calibration,
        }

    def picture(self, page: Any) -> Any:
        """The picture of a page, where there is one."""
        from vertebra.cli.doc_files import picture_of

        return self.image or page.image or picture_of(self.file, page, self.password)

    def pictures(self) -> dict[int, Any]:
        found = {page.number: self.picture(page) for page in self.document}
        return {number: picture for number, picture in found.items() if picture is not None}

    def show(self, found: Any) -> None:
        """Answers as they were asked for: printed, as JSON, as a page, drawn."""
        from vertebra.cli.output import console

        written = []
        if self.html is not None:
            from vertebra.documents.drawing import write_extraction_page

            written.append(write_extraction_page(found, self.html, self.pictures()))
        if self.draw is not None:
            from vertebra.documents.drawing import write_extraction_picture

            for page in found.document:
                several = len(found.document) > 1
                path = self.draw.with_stem(f"{self.draw.stem}-{page.number}") if several else self.draw
                written.append(write_extraction_picture(found, page, path, self.picture(page)))
        if self.json:
            from vertebra.cli.output import print_json

            print_json(found.to_dict())
            return
        _print(found)
        for path in written:
            console().print(f"written to {path}", soft_wrap=True)


def on_document(command: Callable[..., None]) -> Callable[..., None]:
    """A command of `DocumentAndModel` and options of its own, called by the fields of the one and these."""
    shared = inspect.signature(DocumentAndModel, eval_str=True).parameters
    _, *own = inspect.signature(command, eval_str=True).parameters.values()

    @functools.wraps(command)
    def call(**given: Any) -> None:
        command(DocumentAndModel(**{name: given.pop(name) for name in shared}), **given)

    every = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*shared.values(), *own)]
    call.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in every}
    return call


@on_document
def ask(
    asked: DocumentAndModel,
    question: Annotated[list[str], typer.Argument(help="What to ask; each in quotes.")],
    free: Annotated[bool, typer.Option("--free", help="Let the model write the answer; it then has no place.")] = False,
    across: Annotated[bool, typer.Option("--across", help="Answers may run over the ends of lines.")] = False,
) -> None:
    """Ask a model about a document. The answer is copied from its words, so that it can be pointed at."""
    model, given = asked.loaded()
    from vertebra.documents.extract import ask as answers

    asked.show(answers(model, asked.document, question, free=free, across=across, **given))


@on_document
def extract(
    asked: DocumentAndModel,
    schema: Annotated[Path, typer.Option(help='A JSON schema, or names with kinds: {"total": "number"}.', **PATH)],
    across: Annotated[
        list[str] | None, typer.Option(help="A field whose text may run over the ends of lines; repeatable.")
    ] = None,
    free: Annotated[
        list[str] | None, typer.Option(help="A field that the model writes itself; it then has no place. Repeatable.")
    ] = None,
    least: Annotated[float, typer.Option(min=0, max=1, help="Leave out values of a lower confidence.")] = 0.0,
    max_list_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens that a list may take.")] = None,
) -> None:
    """Extract what a schema lists from a document: values copied from its words, with places and confidences."""
    from vertebra.backbone.registry import require_name
    from vertebra.documents.schema import fields_of

    require_name(asked.model)
    fields_of(schema)  # what is wrong with it comes before everything that takes time
    model, given = asked.loaded()
    from vertebra.documents.extract import extract as extracted

    found = extracted(
        model, asked.document, schema, across=tuple(across or ()), free=tuple(free or ()), least=least,
        max_list_tokens=max_list_tokens, **given,
    )  # fmt: skip
    asked.show(found)


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
