"""`extract`: a document and a schema become one result: values, where they stand, and how sure the model is of each.

    document ─► windows of lines that fit ─► prefilled once each ─► every field a row, copied from that window
                                                                        │
    one result over all windows ◄── merged: the surest value of a field, lists joined, places united

It takes models; names of models are understood one floor up.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from vertebra.documents.answers import Answer, ReadWindow
from vertebra.documents.asking import DocumentReader, places_of
from vertebra.documents.calibration import calibration_of
from vertebra.documents.field import Field
from vertebra.documents.found import Extraction, Found
from vertebra.documents.grammar import grammar_of
from vertebra.documents.normalise import WritingHabits
from vertebra.documents.schema import fields_of
from vertebra.documents.settings import ExtractSettings
from vertebra.documents.values import Values, list_faults, list_of, record_of
from vertebra.errors import ConfigError, DataError, UnknownNameError, VertebraError
from vertebra.layout.lines import Laid
from vertebra.model.model import model_of
from vertebra.page.page import Document, Page, numbered
from vertebra.page.reading import read_document


def extract(
    model: Any,
    document: Any,
    schema: Any,
    *,
    settings: ExtractSettings | None = None,
    images: Mapping[int, Any] | None = None,
    **options: Any,
) -> Extraction:
    """The values that a schema asks for, found in a document by a model, each with its places and a confidence.

    `document`: a file, a `Document`, a `Page` or a list of them. `schema`: a pydantic class, a JSON schema, or
    `{"total": "number"}`. `images`: pictures of pages by number, for models that look (a page's own by default).
    `options`: `ExtractSettings`.
    """
    settings = replace(settings or ExtractSettings(), **options) if options else settings or ExtractSettings()
    found = extract_fields(model, document, _marked(fields_of(schema), settings), settings, images)
    instance, faults = _validated(schema, found.values)
    return replace(found, instance=instance, errors=tuple(dict.fromkeys([*found.errors, *faults])))


def ask(
    model: Any,
    document: Any,
    questions: str | Sequence[str],
    *,
    free: bool = False,
    across: bool = False,
    settings: ExtractSettings | None = None,
    images: Mapping[int, Any] | None = None,
    **options: Any,
) -> Extraction:
    """The answers to questions about a document, each copied from it; `result[question]` is a `Found`.

    `free`: answers are written by the model and have no places. `across`: they may run over the ends of lines.
    """
    asked = [questions] if isinstance(questions, str) else list(questions)
    if not asked or not all(isinstance(one, str) and one.strip() for one in asked) or len(set(asked)) < len(asked):
        raise ConfigError(f"questions are {asked!r:.80}; expected texts, none empty, none twice")
    settings = replace(settings or ExtractSettings(), **options) if options else settings or ExtractSettings()
    fields = tuple(Field(name=one, question=one, free=free, across=across) for one in asked)
    return extract_fields(model, document, fields, settings, images)


def extract_fields(
    model: Any, document: Any, fields: tuple[Field, ...], settings: ExtractSettings, images: Mapping[int, Any] | None
) -> Extraction:
    """The same for fields as they are, however they were made."""
    given = document_of(document)
    run = _Run(DocumentReader(model=model_of(model), settings=settings), fields, given, images)
    found = run.go()
    missing = [f"`{one.name}` is required, and was found nowhere" for one in fields if _missing(one, found)]
    errors = tuple(dict.fromkeys([*run.errors, *missing]))
    return Extraction(fields=found, document=given, errors=errors, complete=run.complete, windows=run.windows)


def document_of(given: Any) -> Document:
    """A document from a document, a file, a page, or pages: they keep their numbers, where no two are alike."""
    if isinstance(given, Document):
        return given
    if isinstance(given, Page):
        return Document((given,), given.name)
    if isinstance(given, str | Path):
        return read_document(given, on_bad="repair")
    pages = list(given) if isinstance(given, Iterable) and not isinstance(given, Mapping | bytes) else None
    if pages is None or not all(isinstance(one, Page) for one in pages):
        other = next((type(one).__name__ for one in pages or () if not isinstance(one, Page)), "")
        found = f"a {type(given).__name__}{f' with a {other} in it' if other else ''}"
        raise DataError(f"a document is a file, a `Document`, a `Page`, or a list of pages; found {found}")
    return Document(numbered(pages, "the list"))


def _marked(fields: Sequence[Field], settings: ExtractSettings) -> tuple[Field, ...]:
    """The fields with what the settings say of some, by their names or paths."""
    known = {path for one in fields for path in _paths(one, "")}
    for name in (*settings.across, *settings.free):
        if name not in known:
            raise UnknownNameError("field", name, known)

    def marked(one: Field, path: str) -> Field:
        path = f"{path}.{one.name}" if path else one.name
        return replace(
            one,
            across=one.across or path in settings.across,
            free=one.free or path in settings.free,
            fields=tuple(marked(inner, path) for inner in one.fields),
            item=None if one.item is None else replace(marked(replace(one.item, name=""), path), name=one.item.name),
        )

    return tuple(marked(one, "") for one in fields)


def _paths(one: Field, above: str) -> Iterator[str]:
    path = f"{above}.{one.name}" if above and one.name else above or one.name
    yield path
    for inner in (*one.fields, *(() if one.item is None else one.item.fields)):
        yield from _paths(inner, path)


def _missing(one: Field, found: Mapping[str, Found]) -> bool:
    value = found[one.name].value
    return one.required and (value is None or value == [])


@dataclass
class _Run:
    """One extraction while it goes on."""

    reader: DocumentReader
    fields: tuple[Field, ...]
    document: Document
    images: Mapping[int, Any] | None
    errors: list[str] = field(default_factory=list)
    complete: bool = True
    windows: int = 0
    begun: float = field(default_factory=time.perf_counter)

    def go(self) -> dict[str, Found]:
        settings, reader = self.reader.settings, self.reader
        questions = [reader.question(one) for one in self.fields]
        longest = max(reader.tokens(one) for one in self.fields)
        images = self._images()
        windows = reader.windows(self.document, questions, longest, images)
        self.windows = len(windows)
        if not windows:
            self.errors.append("the document has no text: nothing was asked")
            return {one.name: _nothing(one) for one in self.fields}
        habits = WritingHabits.of(self.document.text)
        per_field: dict[str, list[Found]] = {one.name: [] for one in self.fields}
        for number, lines in enumerate(windows, 1):
            if self._left() == 0:
                self._late([f"window {number} of {len(windows)}"])
                break
            own = {line.page: images[line.page] for line in lines if line.page in images}
            for one, found in self._window(lines, questions, own, habits).items():
                per_field[one].append(found)
        calibration = calibration_of(settings.calibration, reader.model.record)
        merged = {one.name: merge(one, per_field[one.name]) for one in self.fields}
        made = {name: _calibrated(one, calibration) for name, one in merged.items()}
        return {name: self._sure(one, name) for name, one in made.items()}

    def _images(self) -> Mapping[int, Any]:
        if not self.reader.record.image:
            return {}
        own = {page.number: page.image for page in self.document if page.image is not None}
        return {**own, **(self.images or {})}

    def _left(self) -> float | None:
        """Seconds that are left; None: no limit."""
        most = self.reader.settings.seconds
        return None if most is None else max(0.0, most - (time.perf_counter() - self.begun))

    def _late(self, what: Sequence[str]) -> None:
        self.complete = False
        most = self.reader.settings.seconds
        self.errors.append(f"the {most:g} s were over before {', '.join(what)}; what was found by then is kept")

    def _window(
        self, lines: list[Laid], questions: Sequence[str], images: Mapping[int, Any], habits: WritingHabits
    ) -> dict[str, Found]:
        """All fields of one window."""
        reader, settings = self.reader, self.reader.settings
        window = ReadWindow(reader.model, [reader.row(lines, question, images) for question in questions])
        values = Values(places_of(lines, self.document), habits, absent=reader.record.absent)
        texts = values.places.texts
        found: dict[str, Found] = {}
        for nested in (False, True):
            which = [number for number, one in enumerate(self.fields) if one.nested is nested]
            for start in range(0, len(which), settings.rows):
                group = which[start : start + settings.rows]
                left = self._left()
                if left == 0:
                    self._late([f"`{self.fields[number].name}`" for number in group])
                    continue
                asked = [self.fields[number] for number in group]
                form = partial(grammar_of, lines=texts, absent=reader.record.absent, whole=self.windows == 1)
                grammars = [form(one, quoted=reader.quoted(one)) for one in asked]
                answers = window.ask(group, grammars, tokens=reader.tokens(asked[0]), seconds=left)
                for one, answer in zip(asked, answers, strict=True):
                    found[one.name] = self._value(values, one, answer)
        self.errors += values.errors
        return found

    def _value(self, values: Values, one: Field, answer: Answer) -> Found:
        if not answer.whole:
            self.complete = False
            self.errors.append(
                f"`{one.name}`: the answer ended after {len(answer.logs)} tokens ({answer.reason}); what was said is kept"
            )
        quoted = self.reader.quoted(one)
        return values.of(one, answer.text, answer.probability, quoted=quoted, whole=answer.whole)

    def _sure(self, one: Found, name: str) -> Found:
        """A value, or none where the model is less sure than was asked for."""
        least = self.reader.settings.least
        if one.value is None or one.confidence >= least or one.fields or one.items:
            return one
        self.errors.append(f"`{name}`: {one.text!r:.60} is left out, for its confidence is {one.confidence:.2f}")
        return replace(one, value=None, note=f"below the confidence of {least:g}")


def _nothing(one: Field) -> Found:
    return Found(name=one.name, value=[] if one.kind == "list" else None, note="nothing was asked")


def merge(asked: Field, found: Sequence[Found]) -> Found:
    """One answer from those of all windows."""
    if not found:
        return _nothing(asked)
    if asked.kind == "record":
        fields = {one.name: merge(one, [each.fields[one.name] for each in found]) for one in asked.fields}
        return record_of(asked.name, fields)
    if asked.kind == "list":
        items: list[Found] = []
        for each in found:
            items += [one for one in each.items if not any(_same(one, before) for before in items)]
        return list_of(asked.name, tuple(items), empty=min(each.confidence for each in found))
    some = [one for one in found if one.value is not None or one.text is not None]
    if not some:
        return min(found, key=lambda one: one.confidence)
    best = max(some, key=lambda one: (one.value is not None, one.confidence))
    alike = [place for one in some if one.text == best.text for place in one.places]
    return replace(best, places=tuple(dict.fromkeys([*best.places, *alike])))


def _same(one: Found, other: Found) -> bool:
    """Whether two items are one, read twice where windows overlap: the same texts in the same places."""
    ours, theirs = list(one.leaves()), list(other.leaves())
    if [(path, leaf.text) for path, leaf in ours] != [(path, leaf.text) for path, leaf in theirs]:
        return False
    shared = [set(a.places) & set(b.places) for (_, a), (_, b) in zip(ours, theirs, strict=True) if a.places]
    return bool(shared) and all(shared)


def _calibrated(one: Found, calibration: Any) -> Found:
    if calibration is None:
        return one
    if one.fields:
        return record_of(one.name, {name: _calibrated(inner, calibration) for name, inner in one.fields.items()})
    if one.items:
        return list_of(one.name, tuple(_calibrated(inner, calibration) for inner in one.items), empty=one.confidence)
    return replace(one, confidence=calibration(one.confidence))


def _validated(schema: Any, values: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """An instance of a pydantic class, or what it has against the values; the rules of a list."""
    if not hasattr(schema, "model_validate"):
        return None, [fault for one in fields_of(schema) for fault in list_faults(one, values[one.name], one.name)]
    try:
        return schema.model_validate(dict(values)), []
    except VertebraError:
        raise
    except Exception as error:  # pydantic's own, or whatever a validator of the class throws
        listed = getattr(error, "errors", None)
        if not callable(listed):
            return None, [f"{type(error).__name__} in the validation of {schema.__name__}: {error}"]
        return None, [f"`{'.'.join(str(part) for part in one['loc'])}`: {one['msg']}" for one in listed()]
