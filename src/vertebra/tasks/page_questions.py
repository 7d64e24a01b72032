"""What is asked about a page, a row for each sort: questions that a data set brings, fields, and those that are made of
any page's lines and boxes (pre-training).

    fields, questions                what the data set knows: a field's value; a question's answer
    value-by-box                     a field's value, by the place of its name (FUNSD's links, drawn forms)
    text-by-box, box-by-text         what stands here? where is it?
    masked-text, masked-position     the same of a line whose text, or whose box, the model is not given
    geometry, cells                  how two lines lie; what stands beside or below a line

Places are answered in hundredths of the page: left top right bottom. It knows lines and numbers, and no tokens.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from vertebra.errors import UnknownNameError
from vertebra.layout.lines import Laid
from vertebra.layout.record import PageRecord
from vertebra.page.metrics.answers import plain
from vertebra.page.order import SAME_ROW
from vertebra.page.page import Page
from vertebra.page.values import answering_lines, known_values

MASK = "___"
"""Stands for a text that is hidden."""
LONGEST = 40
"""Characters of a line that is asked about by its text, or whose text is asked for."""


@dataclass(frozen=True, kw_only=True)
class PageQuestion:
    """One question and its answer."""

    parts: tuple[Any, ...]
    """Texts, and boxes as lists of numbers."""
    answer: str
    sort: str
    """What it is counted under: `fields`, `geometry` … of a field, its name too."""
    hides: Mapping[int, str] = field(default_factory=dict)
    """Lines (by their place among the lines) whose `text` or `box` the model is not given."""
    name: str | None = None
    """Of a field."""

    @cached_property
    def text(self) -> str:
        """The question as a person reads it."""
        return "".join(part if isinstance(part, str) else f"[{' '.join(map(str, part['box']))}]" for part in self.parts)


@dataclass(kw_only=True)
class QuestionDraft:
    """Lines that are asked about, what the document knows, and what was taken already."""

    lines: Sequence[Laid]
    record: PageRecord
    known: Mapping[str, list[PageQuestion]]
    """Questions of the sorts in `KNOWN`."""
    draw: Any
    missing: float = 0.0
    others: Sequence[str] = ()
    """Names of fields that other documents have."""
    hidden: set[int] = field(default_factory=set)
    """Lines that an earlier question hides, or asks for."""
    asked: set[str] = field(default_factory=set)

    @cached_property
    def alone(self) -> frozenset[int]:
        """Lines whose text stands on the page once."""
        texts = [plain(line.text) for line in self.lines]
        counts = Counter(texts)
        return frozenset(n for n, text in enumerate(texts) if counts[text] == 1)

    @cached_property
    def short(self) -> list[int]:
        """Lines that can be asked about."""
        return [n for n, line in enumerate(self.lines) if len(line.text) <= LONGEST]

    @cached_property
    def boxed(self) -> list[int]:
        """Those of them that have a place."""
        return [n for n in self.short if self.lines[n].box is not None]

    def line(self, *, text: bool = False, box: bool = True) -> int | None:
        """A line that nobody has hidden. `text`: it is named by its text, so that there must be no other like it."""
        fit = self.boxed if box else self.short
        if self.hidden or text:
            fit = [n for n in fit if n not in self.hidden and not (text and n not in self.alone)]
        return None if not fit else fit[int(self.draw.integers(len(fit)))]


def _known(sort: str) -> Callable[[QuestionDraft], PageQuestion | None]:
    def ask(given: QuestionDraft) -> PageQuestion | None:
        if sort == "fields" and given.others and given.draw.random() < given.missing:
            name = given.others[int(given.draw.integers(len(given.others)))]
            return field_question(name, given.record.absent, given.record)
        found = [one for one in given.known.get(sort, ()) if one.text not in given.asked]
        return found[int(given.draw.integers(len(found)))] if found else None

    return ask


def _text_by_box(given: QuestionDraft) -> PageQuestion | None:
    at = given.line()
    return None if at is None else _about(given, at, "text-by-box")


def _masked_text(given: QuestionDraft) -> PageQuestion | None:
    at = given.line()
    return None if at is None else _about(given, at, "masked-text", hides={at: "text"})


def _about(given: QuestionDraft, at: int, sort: str, **more: Any) -> PageQuestion:
    line = given.lines[at]
    box = {"type": "box", "box": list(line.box or ())}
    return PageQuestion(parts=("?", box), answer=line.text, sort=sort, **more)


def _box_by_text(given: QuestionDraft) -> PageQuestion | None:
    at = given.line(text=True)
    return None if at is None else _where(given, at, "box-by-text")


def _masked_position(given: QuestionDraft) -> PageQuestion | None:
    at = given.line(text=True)
    return None if at is None else _where(given, at, "masked-position", hides={at: "box"})


def _where(given: QuestionDraft, at: int, sort: str, **more: Any) -> PageQuestion:
    line = given.lines[at]
    place = " ".join(str(round(100 * number / given.record.scale)) for number in line.box or ())
    return PageQuestion(parts=(f'Where is "{line.text}"?',), answer=place, sort=sort, **more)


def _geometry(given: QuestionDraft) -> PageQuestion | None:
    """How one line lies to another, where only one word fits."""
    one, other = given.line(text=True), given.line(text=True)
    if one is None or other is None or one == other:
        return None
    a, b = given.lines[one], given.lines[other]
    how = relation(a, b)
    if how is None:
        return None
    return PageQuestion(parts=(f'How does "{a.text}" lie to "{b.text}"?',), answer=how, sort="geometry")


def _cells(given: QuestionDraft) -> PageQuestion | None:
    """What stands right of a line in its row, or below it in its column."""
    at = given.line(text=True)
    if at is None:
        return None
    how = ("right of", "below")[int(given.draw.integers(2))]
    found = neighbor(given.lines, at, how)
    if found is None or found in given.hidden or len(given.lines[found].text) > LONGEST:
        return None
    parts = (f'What stands {how} "{given.lines[at].text}"?',)
    return PageQuestion(parts=parts, answer=given.lines[found].text, sort="cells")


SORTS: dict[str, Callable[[QuestionDraft], PageQuestion | None]] = {
    "fields": _known("fields"),
    "questions": _known("questions"),
    "value-by-box": _known("value-by-box"),
    "text-by-box": _text_by_box,
    "box-by-text": _box_by_text,
    "masked-text": _masked_text,
    "masked-position": _masked_position,
    "geometry": _geometry,
    "cells": _cells,
}
"""The sorts of questions by name; each gives one, or None where these lines have none."""


KNOWN = ("fields", "questions", "value-by-box")
"""Sorts that a document brings itself."""


def require_sorts(weights: Mapping[str, float]) -> None:
    for name in weights:
        if name not in SORTS:
            raise UnknownNameError("sort of questions", name, SORTS)


def drawn_questions(given: QuestionDraft, weights: Mapping[str, float], count: int) -> list[PageQuestion]:
    """Up to `count` questions about the same lines; none asks for what another hides, and none comes twice."""
    names = [name for name, weight in weights.items() if weight > 0]
    ends = list(accumulate(weights[name] for name in names))
    found: list[PageQuestion] = []
    for _ in range(4 * count):  # a sort may have nothing to ask here
        if len(found) == count:
            break
        made = SORTS[names[min(bisect(ends, given.draw.random() * ends[-1]), len(names) - 1)]](given)
        if made is not None and made.text not in given.asked:
            found.append(made)
            given.asked.add(made.text)
            given.hidden |= set(made.hides)
    if not given.hidden:
        return found
    # a line that is hidden late was perhaps named before
    hidden = {at for one in found for at in one.hides}
    named = [plain(given.lines[at].text) for at in hidden]
    return [
        one for one in found if one.hides or not any(name and name in plain(one.text + one.answer) for name in named)
    ]


def without(lines: Sequence[Laid], questions: Sequence[PageQuestion]) -> list[Laid]:
    """The lines as the model is given them: what is asked for is hidden."""
    made = list(lines)
    for question in questions:
        for at, what in question.hides.items():
            old = made[at]
            if what == "text":
                made[at] = replace(old, text=MASK, words=(MASK,), word_boxes=(old.box,))
            else:
                made[at] = replace(old, box=None, word_boxes=(None,) * len(old.words))
    return made


def known_questions(
    pages: Sequence[Page], lines: Sequence[Laid], record: PageRecord, fields: Sequence[str] = ()
) -> Any:
    """{sort: questions} that a document brings itself, those whose answers stand in these lines; `fields`: only these."""
    found: dict[str, list[PageQuestion]] = {sort: [] for sort in KNOWN}
    here = [plain(line.text) for line in lines]
    for page in pages:
        for name, value in known_values(page).items():
            if (not fields or name in fields) and _stands(value, here):
                found["fields"].append(field_question(name, value, record))
        for asked in page.facts.get("questions") or ():
            answers = [str(one) for one in asked.get("answers") or () if str(one).strip()]
            if answers and asked.get("question"):
                answer = next((one for one in answers if _stands(one, here)), None)
                if answer is not None:
                    found["questions"].append(
                        PageQuestion(parts=(str(asked["question"]),), answer=answer, sort="questions")
                    )
    places = {(line.page, line.number): line for line in lines}
    for page in pages:
        for number, value in keyed(page):
            named = places.get((page.number, number))
            if named is not None and named.box is not None and _stands(value, here):
                box = {"type": "box", "box": list(named.box)}
                found["value-by-box"].append(PageQuestion(parts=("=", box), answer=value, sort="value-by-box"))
    return found


def keyed(page: Page) -> Iterator[tuple[int, str]]:
    """Lines that are names, by number, each with the value that belongs to it: drawn forms mark them, FUNSD links them."""
    fields = page.facts.get("fields") or {}
    for number, line in enumerate(page.lines):
        name = (line.label or "").removesuffix(".key")
        if name != line.label and isinstance(fields.get(name), str):
            yield number, fields[name]
    for question, answers in answering_lines(page).items():
        value = " ".join(" ".join(page.lines[one].text.split()) for one in answers)
        if value.strip() and page.lines[question].label in (None, "question"):
            yield question, value


def field_question(name: str, value: str, record: PageRecord) -> PageQuestion:
    """The question for a field."""
    return PageQuestion(parts=(record.asked_field(name),), answer=value, sort="fields", name=name)


def _stands(value: str, here: Sequence[str]) -> bool:
    """Whether a value stands in a line, or is put together from some: an address of several."""
    text = plain(value)
    if any(text in line for line in here):
        return True
    squeezed = _letters(text)
    parts = [part for part in map(_letters, here) if len(part) > 3 and part in squeezed]
    return bool(squeezed) and sum(map(len, parts)) >= 0.6 * len(squeezed)


def _letters(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())


def relation(one: Laid, other: Laid) -> str | None:
    """`left of`, `right of`, `above`, `below`: how one line lies to another of its page; None: none of them alone."""
    a, b = one.box, other.box
    if a is None or b is None or one.page != other.page:
        return None
    row = min(a[3], b[3]) - max(a[1], b[1]) > SAME_ROW * min(a[3] - a[1], b[3] - b[1])
    if row and a[2] <= b[0]:
        return "left of"
    if row and b[2] <= a[0]:
        return "right of"
    if a[3] <= b[1]:
        return "above"
    return "below" if b[3] <= a[1] else None


def neighbor(lines: Sequence[Laid], at: int, how: str) -> int | None:
    """The next line right of a line in its row, or below it in its column."""
    own = lines[at]
    best: tuple[int, int] | None = None
    for number, line in enumerate(lines):
        if number == at or line.box is None or own.box is None or line.page != own.page:
            continue
        if how == "right of":
            near = line.box[0] - own.box[2] if relation(line, own) == "right of" else -1
        else:
            across = min(line.box[2], own.box[2]) - max(line.box[0], own.box[0])
            near = line.box[1] - own.box[3] if across > 0 and relation(line, own) == "below" else -1
        if near >= 0 and (best is None or near < best[0]):
            best = near, number
    return None if best is None else best[1]
