"""The documents that kind `pages` learns from: files in any format of pages, or receipts and forms drawn from a seed.

A document is whole on one side: trained on, or held out. It knows no models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from vertebra.config import Bound, Some
from vertebra.data.read.rows import digest
from vertebra.errors import ConfigError, DataError, VertebraError
from vertebra.layout.manners import MannerName
from vertebra.layout.record import HIGHEST, PageRecord
from vertebra.page.files import document_files
from vertebra.page.page import Order, Page
from vertebra.tasks.config import DataConfig


@dataclass(frozen=True, kw_only=True)
class PagesConfig:
    """How documents become samples, as `data.options`."""

    drawn: Literal["receipt", "form", "mixed"] | None = None
    """Draw `count` documents of this kind, in place of a path."""
    head: bool = True
    """Of drawn ones: shop, street, date and goods beside the six pairs of names and values."""
    digits: Annotated[int | None, Bound(least=1)] = None
    """Of drawn ones: values are whole numbers of so many digits, in place of amounts with cents."""
    alike: Annotated[float, Bound(least=0, most=1)] = 0.0
    """Of drawn ones to train on: the share of sheets whose values begin with the same digit. Else a model learns to go on
    from the first digit, wherever on the page it stands, which is right until another value begins with it."""
    printed: bool = False
    """Of drawn ones: a field is named as it is printed (`Amount due`), in place of by one word for all its prints (`total`)."""
    sums: bool = False
    """Of drawn ones: amounts add up, so that the largest is the total."""
    pairs: Annotated[int, Bound(least=1, most=6)] = 6
    """Of drawn ones to train on: from so many pairs of a name and a value up to all six; few are where a model from scratch
    begins. Those held out have six."""
    slant: Annotated[float, Bound(least=0, most=45)] = 0.0
    """Of drawn ones: turned by up to so many degrees, either way, as scans are; those with a picture are always turned."""
    joined: Annotated[float, Bound(least=0, most=1)] = 0.0
    """Of drawn ones to train on: the share of names that are one line with the value beside them, as OCR makes them. On those
    held out each stands alone: else words would be enough."""
    manner: MannerName = "doclaylm"
    """How boxes enter: `doclaylm`, `laytext`, `added`, `text` (`vertebra.layout`)."""
    scale: Annotated[int, Bound(least=1, most=HIGHEST)] = HIGHEST
    boxes: Literal["line", "word", "token"] = "line"
    """For `added`: whose box a token is given: its line's, its word's, or its own share of that."""
    order: Order = "top"
    """Reading order, where lines are not shuffled."""
    image: bool = False
    """Show the page's picture before its lines; the model needs a part `image`."""
    template: str = "{question}"
    ask: str = "What is the {field}?"
    """The question for a field."""
    absent: str = "none"
    """What is answered where a document does not have the field."""
    encoder: Literal["tables", "waves"] = "tables"
    """Of boxes: learned tables, as LayoutLMv3's, or sines and cosines."""
    size: Some = 32
    """For `tables`: columns of each."""
    frequencies: Annotated[int, Bound(least=1, most=10)] = 8
    """For `waves`: of each number."""
    projector: Literal["linear", "gelu2", "gelu3"] = "linear"
    shuffle: bool = True
    """In training, lines come in another order each time; so do those that are held out, always in the same."""
    turns: Some = 4
    """Questions about one page in a sample."""
    apart: bool = True
    """No question of a sample sees another or its answer, as `vertebra doc ask` asks them; else each follows the one before
    it, as in a conversation."""
    learn: dict[str, float] = field(default_factory=lambda: {"fields": 1.0, "questions": 1.0})
    """What is asked in training, by weight: fields, questions, value-by-box, text-by-box, box-by-text, masked-text,
    masked-position, geometry, cells."""
    fields: tuple[str, ...] = ()
    """Only these fields are asked for; none: all that a document has."""
    missing: Annotated[float, Bound(least=0, most=1)] = 0.0
    """The share of questions for fields that the document does not have, answered by `absent`."""
    reserve: Annotated[int, Bound(least=16)] = 96
    """Positions of a row that questions and answers may take; lines have the rest."""
    asked: Some = 200
    """Held-out questions that an evaluation asks."""

    def style(self, *, fixed: bool = False) -> Any:
        """How documents are drawn; `fixed`: those that are held out."""
        from vertebra.page.paper.receipts import Style

        own: dict[str, Any] = {} if fixed else {"pairs": self.pairs, "alike": self.alike}
        return Style(head=self.head, digits=self.digits, sums=self.sums, printed=self.printed, **own)

    @property
    def record(self) -> PageRecord:
        """What the model's folder remembers."""
        return PageRecord(
            manner=self.manner,
            scale=self.scale,
            boxes=self.boxes,
            order=self.order,
            image=self.image,
            template=self.template,
            field=self.ask,
            absent=self.absent,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PageDocument:
    """One document with what is known about it."""

    name: str
    pages: tuple[Page, ...]
    pictures: Mapping[int, Callable[[], Any]] = field(default_factory=dict)
    """Of pages by number, opened when their batch is made."""

    @property
    def content(self) -> str:
        """A hash of what it says."""
        content = [
            (page.number, [(line.text, line.box) for line in page.lines], repr(page.facts)) for page in self.pages
        ]
        return digest(self.name, repr(content))


def documents(data: DataConfig, options: PagesConfig, seed: int) -> tuple[list[PageDocument], list[PageDocument]]:
    """(to train on, held out)"""
    if options.drawn is not None:
        return list(_drawn(options, data.count, seed)), held_out_documents(data, options, seed)
    if data.path is None:
        raise ConfigError(
            "kind `pages` has nothing to read yet: name your documents (--set data.path=receipts.jsonl, a folder, a "
            "pattern), or have some drawn (data.options.drawn=receipt, form, mixed)"
        )
    found = read_documents(data.path, data.pattern)
    if data.eval_path is not None:
        return found, read_documents(data.eval_path, data.pattern)
    count = min(max(1, round(data.held_out * len(found))), len(found) - 1) if data.held_out else 0
    order = np.random.default_rng(0).permutation(len(found)).tolist()
    return [found[n] for n in sorted(order[count:])], [found[n] for n in sorted(order[:count])]


def held_out_documents(data: DataConfig, options: PagesConfig, seed: int) -> list[PageDocument]:
    """Those alone: where documents are drawn, none are drawn to train on."""
    if options.drawn is None:
        return documents(data, options, seed)[1]
    apart = max(1, round(data.count * data.held_out)) if data.held_out else 0
    return list(_drawn(options, apart, seed + 1, fixed=True))


def _drawn(options: PagesConfig, count: int, seed: int, *, fixed: bool = False) -> Iterator[PageDocument]:
    from vertebra.page.paper.made import drawn_page

    style, kind = options.style(fixed=fixed), str(options.drawn)
    joining = 0.0 if fixed else options.joined
    for number in range(count):
        make = partial(drawn_page, kind, number, seed, style=style, slant=options.slant, joining=joining)
        # with a picture, the lines are those of the picture: slanted as it is
        page = make(picture=options.image)
        pictures = {1: partial(_picture, make)} if options.image else {}
        yield PageDocument(name=f"{kind} {number} of seed {seed}", pages=(_bare(page),), pictures=pictures)


def _picture(make: Callable[..., Page]) -> Any:
    return make(picture=True).image


def _bare(page: Page) -> Page:
    return replace(page, image=None)


def read_documents(path: Any, pattern: str | None = None) -> list[PageDocument]:
    """The documents of a file, a folder, a pattern, or several. Of a `.jsonl` file each row is a document; what cannot be
    read is listed in one error."""
    found: list[PageDocument] = []
    faults: list[str] = []
    try:
        files = document_files(path, pattern)
    except DataError as error:
        raise ConfigError(f"data.path: {error}") from None
    for file in files:
        try:
            found += _of_file(file)
        except VertebraError as error:
            faults.append(str(error))
    if faults:
        raise DataError(f"{len(faults)} files of pages cannot be read:\n" + "\n".join(f"  {one}" for one in faults[:8]))
    if not found:
        raise DataError(f"`{path}` holds no document; expected files of pages: JSON lines, FUNSD, CORD, SROIE, PDF …")
    return found


def _of_file(file: Path) -> Iterator[PageDocument]:
    from vertebra.page.formats.registry import read_pages
    from vertebra.page.reading import read_document

    if ".jsonl" in file.suffixes:
        for row, page in enumerate(read_pages(file, on_bad="repair"), 1):
            yield _document(f"{file.name}:{row}", (_numbered(page),))
    else:
        yield _document(file.name, tuple(read_document(file, on_bad="repair")))


def _document(name: str, pages: tuple[Page, ...]) -> PageDocument:
    pictures = {page.number: partial(_opened, page.image) for page in pages if page.image is not None}
    return PageDocument(name=name, pages=pages, pictures=pictures)


def _numbered(page: Page) -> Page:
    return replace(page, number=1)


def _opened(image: Any) -> Any:
    from vertebra.page.pictures import opened

    return opened(image).convert("RGB")
