"""What a model's pages are, as plain data that travels in its folder: `Model.record["page"]`.

    document ──order──► lines ──manner, scale──► text and slots ──► sequence ──► answer
                          question ──template──────────┘

Whoever trains a model on pages writes it, whoever asks one reads it; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from vertebra import config
from vertebra.config import Bound
from vertebra.errors import ConfigError
from vertebra.layout.manners import MANNERS, Manner, MannerName, manner_named
from vertebra.page.page import Order

PAGE = "page"
"""Its place in a model's record."""
VERSION = 1
"""Of what is written."""
HIGHEST = 1000
"""The largest coordinate that box encoders read."""
BOXES_OF = ("line", "word", "token")
"""Whose box a token may be given."""


@dataclass(frozen=True, kw_only=True)
class PageRecord:
    """How a document and a question become a sequence, with everything that training decided about it."""

    version: int = VERSION
    manner: MannerName
    """How boxes enter: `doclaylm`, `laytext`, `added`, `text`."""
    scale: Annotated[int, Bound(least=1, most=HIGHEST)] = HIGHEST
    """Coordinates are whole numbers from 0 to this, over a page's width and height."""
    boxes: str = "line"
    """Whose box a token is given under `added`: its `line`'s, its `word`'s, or its own share of that (`token`)."""
    order: Order = "top"
    """Reading order of a page's lines."""
    image: bool = False
    """Whether a page's picture stands before its lines, in slots of the segment `image`."""
    mark: str = "Page {number}"
    """A line before the lines of each page, where a row holds several."""
    template: str = "{question}"
    """What is asked, with the question in it, behind the lines."""
    field: str = "What is the {field}?"
    """The question for a field of a form, with its name in it."""
    absent: str = "none"
    """What is answered where the lines do not hold it."""

    def __post_init__(self) -> None:
        faults = []
        if self.version != VERSION:
            faults.append(f"version {self.version}; {VERSION} is read here: upgrade vertebra")
        if self.manner not in MANNERS:
            faults.append(f"manner `{self.manner}`; known are {', '.join(MANNERS)}")
        if self.boxes not in BOXES_OF:
            faults.append(f"boxes `{self.boxes}`; expected one of {', '.join(BOXES_OF)}")
        elif self.boxes != "line" and self.manner != "added":
            faults.append(f"boxes of {self.boxes}s are added to tokens, and manner `{self.manner}` has one slot a line")
        for name, place in (("mark", "{number}"), ("template", "{question}"), ("field", "{field}")):
            if place not in getattr(self, name):
                faults.append(f"{name} {getattr(self, name)!r:.80} has no place for {place}")
        if "\n" in self.mark:
            faults.append("the mark of a page is one line")
        if not self.absent.strip():
            faults.append("`absent` is empty; expected the word that is answered where there is nothing")
        if faults:
            raise ConfigError("a record of pages contradicts itself:\n" + "\n".join(f"  {fault}" for fault in faults))

    @property
    def how(self) -> Manner:
        """The row of its manner."""
        return manner_named(self.manner)

    @property
    def segments(self) -> tuple[str, ...]:
        """The parts that the model must have."""
        return (*(("image",) if self.image else ()), *(("boxes",) if self.how.boxes else ()))

    def asked(self, question: str) -> str:
        """The text that is asked of the model."""
        return self.template.replace("{question}", question)

    def asked_field(self, field: str) -> str:
        """The question for a field of this name."""
        return self.field.replace("{field}", field)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `Model.record["page"]`."""
        return dict(config.plain(self))

    @classmethod
    def of(cls, record: Mapping[str, Any], *, where: str = "this model") -> PageRecord:
        """The record in a model's `record`; one that is missing or damaged is an error."""
        advice = "so it cannot be asked about documents; train kind `pages`, or give a PageRecord of your own"
        return config.recorded(cls, record, PAGE, where=where, of="pages", advice=advice)


def drawn(record: PageRecord) -> str:
    """How a model reads pages, as text: what `vertebra info` shows.

    pages     added: boxes added to the tokens that they belong to (of a word), 0..1000
              lines from the top; asked 'What is the …?'
    """
    whose = f" (of a {record.boxes})" if record.how.added else ""
    scale = f"{whose}, 0..{record.scale}" if record.how.boxes else ""
    eyes = "the picture first; " if record.image else ""
    order = {"given": "as given", "top": "from the top", "columns": "column by column"}[record.order]
    return "\n".join(
        [
            f"pages     {record.manner}: {record.how.does}{scale}",
            f"          {eyes}lines {order}; asked {record.asked(record.asked_field('…'))!r}",
        ]
    )
