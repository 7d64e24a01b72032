"""`evaluate_documents`: every question about every page, once an arm; answers held against gold ones and their evidence."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from vertebra.documents.asking import UNTRAINED
from vertebra.documents.extract import extract_fields
from vertebra.documents.found import Found
from vertebra.documents.normalise import normalised
from vertebra.documents.settings import ExtractSettings
from vertebra.evaluate.documents.arms import DocumentArm, document_arms
from vertebra.evaluate.documents.asked import GoldQuestion, asked_of, evidence, relative_boxes, require_asked
from vertebra.evaluate.documents.results import AnswerRecord, DocumentResults
from vertebra.layout.record import PAGE, PageRecord
from vertebra.model.model import model_of
from vertebra.page.metrics.answers import anls, exact, plain
from vertebra.page.metrics.evidence import box_hits, line_f1
from vertebra.page.page import Document, Page


def evaluate_documents(
    model: Any,
    pages: Iterable[Page],
    *,
    arms: str | Sequence[str] = (),
    fields: Sequence[str] | None = None,
    across: Sequence[str] = ("address",),
    seeds: int = 1,
    settings: ExtractSettings | None = None,
    loaded: Callable[[str], Any] | None = None,
    each: Callable[[AnswerRecord], None] | None = None,
) -> DocumentResults:
    """How often a model's copied answers are right, and point at the right place.

    `pages`: with their answers in `facts`. `arms`: see `evaluate.documents.arms`. `fields`: those alone; `across`: those
    that run over lines. `seeds`: how often what is shuffled is shuffled anew. `loaded`: makes the models of arms from
    their names. `each`: called with every record as it is made.
    """
    begun, given = time.perf_counter(), list(pages)
    require_asked(given, fields)
    own, chosen = model_of(model), document_arms(arms)
    records: list[AnswerRecord] = []
    for arm in chosen:
        asker = own if arm.model is None else model_of(_named(arm, loaded))
        how = replace(settings or ExtractSettings(), **_order(asker, arm))
        for seed in range(seeds if arm.change is not None else 1):  # what nothing changes by chance is asked once
            for number, page in enumerate(given):
                asked = asked_of(page, fields, across)
                for record in _page(asker, arm, how, page, number, seed, asked) if asked else ():
                    records.append(record)
                    if each is not None:
                        each(record)
    return DocumentResults(model=own.identifier, records=tuple(records), seconds=time.perf_counter() - begun)


def _named(arm: DocumentArm, loaded: Callable[[str], Any] | None) -> Any:
    if loaded is None:
        from vertebra.interop.load import load

        loaded = load
    return loaded(str(arm.model))


def _order(model: Any, arm: DocumentArm) -> dict[str, Any]:
    """Lines that were shuffled are not put in order again."""
    if not arm.as_given:
        return {}
    record = PageRecord.of(model.record) if model.record.get(PAGE) else UNTRAINED
    return {"record": replace(record, order="given")}


def _page(
    model: Any, arm: DocumentArm, how: ExtractSettings, page: Page, number: int, seed: int, asked: list[GoldQuestion]
) -> list[AnswerRecord]:
    chance = random.Random(f"{seed} {number} {page.name}")  # the same for every arm and in every process
    read = page if arm.change is None else arm.change(page, chance)
    document = Document((read,), page.name)
    images = {page.number: page.image} if arm.pixels and page.image is not None else {}
    if not arm.pixels:
        document = Document((replace(read, image=None),), page.name)
    fields = tuple(replace(one.field, free=True) if arm.written else one.field for one in asked)
    found = extract_fields(model, document, fields, how, images)
    return [_record(arm, number, seed, one, page, read, found[one.field.name]) for one in asked]


def _record(
    arm: DocumentArm, number: int, seed: int, one: GoldQuestion, page: Page, read: Page, found: Found
) -> AnswerRecord:
    answer = found.text or ""
    gold_lines = evidence(read, one.golds)
    gold_boxes = relative_boxes(page, evidence(page, one.golds)) if arm.read_anew else relative_boxes(read, gold_lines)
    there = bool(one.golds)
    points = there and not arm.written
    return AnswerRecord(
        arm=arm.name, page=number, seed=seed, field=one.field.name, kind=one.kind, golds=one.golds, answer=found.text,
        confidence=min(max(found.confidence, 0.0), 1.0),
        exact=bool(exact(answer, one.golds)) if there else found.text is None,
        same=_same(answer, one) if there else found.text is None,
        anls=anls(answer, one.golds) if there else float(found.text is None),
        line_f1=line_f1(gold_lines, found.lines) if points and gold_lines else None,
        box_hits=box_hits(gold_boxes, relative_boxes(read, found.lines)) if points and gold_boxes else None,
        stands=found.text is None or bool(found.places) or (arm.written and _all_there(answer, read)),
        lines=tuple(found.lines),
    )  # fmt: skip


def _all_there(answer: str, page: Page) -> bool:
    """Whether every word of an answer stands somewhere on the page."""
    return set(plain(answer).split()) <= {word for line in page.lines for word in plain(line.text).split()}


def _same(answer: str, one: GoldQuestion) -> bool:
    """Equal as values of the gold answer's type, or as texts without case and double blanks."""
    kind = {"date": "date", "amount": "number"}.get(one.kind)
    for gold in one.golds:
        if plain(gold) == plain(answer):
            return True
        if kind is not None:
            ours, theirs = normalised(gold, kind), normalised(answer, kind)
            if ours.value is not None and ours.value == theirs.value:
                return True
    return False
