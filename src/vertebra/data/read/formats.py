"""What a row means: plain text, a conversation in one of its spellings, or a pair of sentences.

A format is named by its columns and recognised by them; reading turns the row into one of three samples, or tells why
it cannot. This module does not know tokenizers or prompts.

    text                text | content
    messages            messages: [{role, content}]            content: text, or a list of parts (text, image, …)
    sharegpt, llava     conversations: [{from, value}], image  `<image>` in a value stands for the next image
    alpaca              instruction, input?, output, system?
    prompt_completion   prompt, completion
    pairs               sentence1, sentence2, label            and the other spellings of GLUE and MRPC
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from vertebra.data.read.conversations import (
    BadRow,
    Conversation,
    alpaca,
    messages,
    prompt_completion,
    sharegpt,
    text_of,
    weight_of,
)
from vertebra.data.read.rows import Fault, Row, Source
from vertebra.errors import ConfigError, DataError, UnknownNameError, did_you_mean


@dataclass(frozen=True, slots=True)
class Text:
    """A stretch of text."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Pair:
    """One or two sentences, and what class (or number) they belong to."""

    first: str
    second: str | None
    label: int | float | str | None


Sample = Text | Conversation | Pair


@dataclass(frozen=True)
class SampleFormat:
    """A spelling of samples: which columns it needs, and how they are read."""

    name: str
    columns: tuple[tuple[str, ...], ...]
    """Alternatives; each is a set of columns that must all be there."""
    read: Callable[[Mapping[str, Any], tuple[str, ...]], Any]
    optional: tuple[str, ...] = ()
    makes: type = Conversation
    """What a row becomes."""

    def fits(self, columns: Iterable[str]) -> tuple[str, ...] | None:
        """The first alternative whose columns are all there."""
        have = set(columns)
        return next((needed for needed in self.columns if have.issuperset(needed)), None)


def _text(fields: Mapping[str, Any], columns: tuple[str, ...]) -> Text:
    return Text(text_of(fields, columns[0]), weight_of(fields.get("weight", 1.0)))


def _pair(fields: Mapping[str, Any], columns: tuple[str, ...]) -> Pair:
    names = [name for name in columns if name != "label"]
    second = text_of(fields, names[1]) if len(names) > 1 else None
    label = fields.get("label", fields.get("Quality"))
    if label is not None and not isinstance(label, int | float | str):
        raise BadRow(f"bad label: expected a number or a name, got {label!r}")
    return Pair(text_of(fields, names[0]), second, label)


PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("#1 String", "#2 String"),
    ("sentence", "label"),
    ("text", "label"),
)
"""Column names of sentence pairs as GLUE and its kin spell them (MRPC's own file: `#1 String`, `#2 String`, and the
label as `Quality`); the last two are single sentences with a class.
A table of `text` and `label` is recognised as text; call it `pairs` to have its classes."""

# In the order in which a row is tried: the more telling columns first (many tables also carry a `text` column).
FORMATS: dict[str, SampleFormat] = {
    made.name: made
    for made in (
        SampleFormat("messages", (("messages",),), messages, ("weights", "weight", "images")),
        SampleFormat("sharegpt", (("conversations",),), sharegpt, ("image", "system", "weight")),
        SampleFormat("alpaca", (("instruction", "output"),), alpaca, ("input", "system", "weight")),
        SampleFormat("prompt_completion", (("prompt", "completion"),), prompt_completion, ("system", "weight")),
        SampleFormat("text", (("text",), ("content",)), _text, ("weight",), Text),
        SampleFormat("pairs", PAIR_COLUMNS, _pair, ("label", "Quality"), Pair),
    )
}
ALIASES = {"llava": "sharegpt", "chat": "messages", "plain": "text"}


def register_format(format: SampleFormat) -> SampleFormat:
    """Let rows be read that have columns of your own; its name must be new. It is recognised after those that are here."""
    if format.name in FORMATS or format.name in ALIASES:
        raise ConfigError(f"a format `{format.name}` exists already. Formats: {', '.join([*FORMATS, *ALIASES])}")
    FORMATS[format.name] = format
    return format


def detect(columns: Iterable[str]) -> SampleFormat | None:
    """The format that these columns spell."""
    have = list(columns)
    return next((made for made in FORMATS.values() if made.fits(have)), None)


class Reader:
    """Rows of one source → samples. The first row that spells a format fixes it; later rows must be of the same.

    format: name it instead of recognising it.
    columns: our name of a column → the name that the data uses.
    images: the folder that image paths are relative to; the data file's own folder where not given.
    keep: which plain texts to take (a `KeywordFilter`); the others are no faults, they are counted in `left_out`.
    """

    def __init__(
        self,
        format: str | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        images: str | Path | None = None,
        keep: Callable[[str], bool] | None = None,
    ) -> None:
        self.columns, self.keep, self.left_out = dict(columns or {}), keep, 0
        self.images = None if images is None else Path(images)
        self.format: SampleFormat | None = None
        self.has_images = False
        self._needed: dict[tuple[str, ...], tuple[str, ...]] = {}  # what rows of these columns are read from
        if format is not None:
            name = ALIASES.get(format, format)
            if name not in FORMATS:
                raise UnknownNameError("format", format, [*FORMATS, *ALIASES])
            self.format = FORMATS[name]
        known = {name for made in FORMATS.values() for group in made.columns for name in (*group, *made.optional)}
        for ours in self.columns:
            if ours not in known:
                raise UnknownNameError("column", ours, known, hint="`columns` maps our names to those of the data.")
        if self.images is not None and not self.images.is_dir():
            raise DataError(f"the image folder {self.images} does not exist")

    @property
    def name(self) -> str:
        """What the data is called: `sharegpt` with images is `llava`."""
        if self.format is None:
            return "unknown"
        return "llava" if self.format.name == "sharegpt" and (self.has_images or self.images) else self.format.name

    def __call__(self, row: Row) -> Sample | Fault | None:
        fields = self._renamed(row.fields)
        if self.format is None:
            self.format = detect(fields)
            if self.format is None:
                return row.fault(self._unknown(row.fields))
        names = tuple(fields)
        needed = self._needed.get(names)
        if needed is None:
            needed = self.format.fits(fields)
            if needed is None:
                return row.fault(self._missing(self.format, row.fields, detect(fields)))
            self._needed[names] = needed
        try:
            sample = self.format.read(fields, needed)
            if isinstance(sample, Conversation) and sample.images:
                self.has_images = True
                folder = self.images or Path(row.file).parent
                return sample.with_images(folder, given=self.images is not None)
            if self.keep is not None and isinstance(sample, Text) and not self.keep(sample.text):
                self.left_out += 1
                return None
            return sample
        except BadRow as error:
            return row.fault(str(error))

    def settle(self, source: Source) -> None:
        """Fix the format by the first rows that spell one, so that every process takes the same."""
        for row in islice(source.rows(), 100):
            if self.format is not None:
                return
            if isinstance(row, Row):
                self(row)

    def _renamed(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self.columns:
            return fields
        theirs = set(self.columns.values())
        renamed = {name: value for name, value in fields.items() if name not in theirs}
        return renamed | {ours: fields[name] for ours, name in self.columns.items() if name in fields}

    def _unknown(self, fields: Mapping[str, Any]) -> str:
        names = {name for made in FORMATS.values() for group in made.columns for name in group}
        near = next((hint for column in fields if (hint := did_you_mean(column, names, count=1))), "")
        return (
            f"no known format: the columns are {list(fields)}.{near} Known formats: {', '.join(FORMATS)}; name columns "
            'with columns={"text": "their name"}'
        )

    def _missing(self, format: SampleFormat, fields: Mapping[str, Any], found: SampleFormat | None) -> str:
        if found is not None and found is not format:
            return f"mixed formats: this row looks like `{found.name}`, the others are `{self.name}`"
        expected = min(format.columns, key=lambda group: len(set(group) - set(fields)))
        lacking = [name for name in expected if name not in fields and self.columns.get(name) not in fields]
        hints = "".join(did_you_mean(self.columns.get(name, name), fields, count=1) for name in lacking)
        called = ", ".join(f"`{self.columns.get(name, name)}`" for name in lacking)
        return f"missing column: {called} of format `{format.name}`; the row has {list(fields)}.{hints}"
