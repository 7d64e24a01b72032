"""The demo's documents: receipts and forms are drawn, a small model from scratch learns to read fields off them, and its twin
without boxes shows what words alone reach; then pages go through real OCR.

    drawn pages ──train──► with boxes │ without ──► held-out pages ──► rapidocr ──► the same questions ──► one page

Six values of one distribution stand on each page and lines are shuffled, so that words alone are right once in six.
"""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.cli.demo_training import Training, train_at_once

RECIPE = "receipts-drawn"
BLIND = ("data.options.manner=text", "data.options.boxes=line", "data.options.learn={fields: 1}")
"""No boxes, and no questions about them: they would be long rows of numbers."""
SORTS = ("amount", "number")
READS, READS_SCANS, GUESSES = 0.95, 0.85, 0.25
"""The least share of right answers, and through OCR; the most without boxes, where one in six is chance."""
STYLE = """
img { border: 1px solid var(--line); } .wrong { color: var(--bad); }
main > div { display: flex; gap: 2em; margin: 1em 0; }
"""


@dataclass(frozen=True, kw_only=True)
class DocumentSizes:
    """How much of everything."""

    settings: tuple[str, ...] = ()
    """Of both trainings, as a recipe has them."""
    scans: int = 30
    """Pages that go through OCR."""
    workers: int = 2
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class DemoScores:
    """What came of it: shares of fields that were answered exactly."""

    boxes: float
    words: float
    """By the twin without boxes."""
    scans: float | None
    """Through OCR; None: no engine is installed."""
    report: Path
    seconds: float

    @property
    def good(self) -> bool:
        """It reads, by the places, and pages that were scanned as well."""
        scans = self.scans is None or self.scans >= READS_SCANS
        return self.boxes >= READS and self.words <= GUESSES and scans


def documents(printer: Any, out: Path, sizes: DocumentSizes | None = None) -> DemoScores:
    """Draw, train, ask; everything that an earlier demo left there is made anew."""
    began, sizes = time.monotonic(), sizes or DocumentSizes()
    folder = out / "documents"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = _trained(printer, folder, sizes)
    scans, shown = _scanned(printer, folder / "boxes" / "model", sizes)
    page = folder / "documents.html"
    page.write_text(_page(found, scans, shown), encoding="utf-8")
    return DemoScores(
        boxes=found["boxes"], words=found["words"], scans=scans, report=page, seconds=time.monotonic() - began
    )


def _trained(printer: Any, folder: Path, sizes: DocumentSizes) -> dict[str, float]:
    """The share of right answers of the model and of its twin, trained at once: neither uses more than one thread."""
    shared = [f"seed={sizes.seed}", *sizes.settings]
    twins = [
        Training(recipe=RECIPE, out=folder / "boxes", settings=shared),
        Training(recipe=RECIPE, out=folder / "words", settings=[*shared, *BLIND]),
    ]
    found = train_at_once(printer, twins, workers=sizes.workers)
    rates = {name: share_of(measured) for name, measured in found.items()}
    for name, rate in rates.items():
        printer.print(f"{name:6} {rate:.0%} of held-out fields right")
    return rates


def share_of(found: dict[str, float]) -> float:
    """The share of right answers among fields whose names say nothing of their values."""
    rates = [found[sort] for sort in SORTS if sort in found]
    return sum(rates) / len(rates)


def _scanned(printer: Any, model: Path, sizes: DocumentSizes) -> tuple[float | None, list[dict[str, Any]]]:
    """(the share of fields read right through OCR, pages with what was answered)"""
    from vertebra.errors import MissingPartError
    from vertebra.model.model import Model
    from vertebra.page.ocr.engines import engine
    from vertebra.tasks.page_samples import PageSamples
    from vertebra.tasks.pages import answers_to

    try:
        by = engine("rapidocr")
    except MissingPartError as error:
        printer.print(f"no OCR: {error}", soft_wrap=True, markup=False)
        return None, []
    loaded = Model.load(model, inference_mode=True).eval()
    samples, asked = scanned_samples(loaded, by, sizes)
    assert isinstance(samples, PageSamples)
    answers = list(answers_to(loaded, asked, samples))
    right = [answer == question.answer for _, question, answer in answers]
    rate = sum(right) / len(right)
    printer.print(f"scans  {rate:.0%} of fields right on {sizes.scans} pages read by {by.name}")
    shown: dict[int, dict[str, Any]] = {}
    for number, question, answer in answers[:60]:
        row = shown.setdefault(number, {"page": samples.views[number].document.pages[0], "rows": []})
        row["rows"].append((question.text, answer, question.answer))
    return rate, list(shown.values())


def scanned_samples(model: Any, by: Any, sizes: DocumentSizes) -> tuple[Any, list[Any]]:
    """Pages that no training has drawn, as an OCR engine reads their pictures, and what is asked about them."""
    from dataclasses import replace

    from vertebra.data.model_facts import ModelFacts
    from vertebra.layout.record import PageRecord
    from vertebra.page.ocr.engines import read_picture
    from vertebra.page.paper.made import drawn_page
    from vertebra.tasks.page_questions import field_question
    from vertebra.tasks.page_samples import PageSamples
    from vertebra.tasks.page_sets import PageDocument
    from vertebra.tasks.registry import task_of
    from vertebra.training.recipes import read_recipe

    data = read_recipe(RECIPE, sizes.settings).data
    options: Any = task_of(data).options(data)
    record = PageRecord.of(model.record)
    documents, asked = [], []
    for number in range(sizes.scans):
        page = drawn_page(str(options.drawn), number, sizes.seed + 2, style=options.style(fixed=True), picture=True)
        read = replace(read_picture(page.image, by), image=page.image, number=1, facts={})
        documents.append(PageDocument(name=f"scan {number}", pages=(read,)))
        asked += [
            (number, field_question(name, value, record))
            for name, value in page.facts["fields"].items()
            if page.facts["sorts"][name] in SORTS
        ]
    options = replace(options, learn={"text-by-box": 1.0})  # every page stays, whatever OCR has made of it
    facts = ModelFacts.of(model)
    return PageSamples(documents, facts, options, size=facts.block(data.block), fixed=True), asked


def _page(found: dict[str, float], scans: float | None, shown: Sequence[dict[str, Any]]) -> str:
    """The pages that were read, each with its lines' boxes and what was answered."""
    from vertebra.page.drawing import drawn
    from vertebra.webpage import data_url, escaped, webpage

    bodies = []
    for one in shown:
        file = io.BytesIO()
        drawn(one["page"], words=False).save(file, "PNG")
        rows = "".join(
            f'<tr class="{"right" if answer == gold else "wrong"}"><td>{escaped(question)}</td><td>{escaped(answer)}</td>'
            f"<td>{'' if answer == gold else escaped(gold)}</td></tr>"
            for question, answer, gold in one["rows"]
        )
        bodies.append(f'<div><img alt="page" src="{data_url(file.getvalue())}"><table>{rows}</table></div>')
    through = "no OCR engine is installed" if scans is None else f"{scans:.0%} through real OCR"
    head = (
        f"<h1>Documents</h1><p>Right answers on pages that were never seen: {found['boxes']:.0%} with boxes, "
        f"{found['words']:.0%} with words alone (one in six is chance), {through}.</p>"
    )
    return webpage("Documents", head + "".join(bodies), style=STYLE)
