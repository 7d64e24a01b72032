"""What `vertebra data check` finds in documents: lines without places, fields whose value stands nowhere, lengths."""

from __future__ import annotations

from collections import Counter

import numpy as np

from vertebra.data.look.findings import Finding, counted
from vertebra.data.look.report import DataReport, histogram
from vertebra.layout.lines import lines_of
from vertebra.page.values import known_values
from vertebra.tasks.page_questions import known_questions
from vertebra.tasks.page_samples import PageSamples
from vertebra.tasks.page_sets import PageDocument


def report_of(train: PageSamples, held_out: PageSamples | None, *, source: str) -> DataReport:
    """Documents held against a model, those held out too."""
    views = [*train.views, *(held_out.views if held_out else ())]
    documents = list({id(view.document): view.document for view in views}.values())
    lines = [
        (one.name, page.number, n, line) for one in documents for page in one.pages for n, line in enumerate(page.lines)
    ]
    bare = [f"{name}, page {page}, line {n}: {line.text[:40]!r}" for name, page, n, line in lines if line.box is None]
    empty = [f"{name}, page {page}, line {n}" for name, page, n, line in lines if not line.text.strip()]
    known = sum(len(view.brought) for view in views)
    silent = [view.document.name for view in views if not view.brought]
    windows = Counter(id(view.document) for view in views)
    cut = [one.name for one in documents if windows[id(one)] > 1]
    needs_boxes = train.record.how.boxes
    lengths = np.concatenate([train.lengths, held_out.lengths if held_out else []])
    nowhere, total = _nowhere(documents, train)
    return DataReport(
        source=source,
        model=train.model.name,
        format=train.record.manner,
        kind="pages",
        findings=(
            Finding(
                "documents",
                "pass",
                f"{len(documents):,}",
                f"{len(held_out.views) if held_out else 0:,} windows held out",
            ),
            Finding(
                "windows", "pass", f"{len(views):,}", f"{len(lines):,} lines, in rows of at most {int(max(lengths)):,}"
            ),
            counted("long documents", cut, len(documents), "take several windows", "note", cut),
            counted("lines", empty, len(lines), "without a text", "note", empty),
            counted("boxes", bare, len(lines), "without a place", "note" if needs_boxes else "pass", bare),
            Finding("questions", "pass", f"{known:,}", "that the documents bring themselves"),
            counted("silent windows", silent, len(views), "have no question of their own", "note", silent),
            counted("fields", nowhere, total, "stand nowhere on their document", "note", nowhere),
        ),
        histogram=histogram(lengths.astype(np.int64)),
    )


def _nowhere(documents: list[PageDocument], samples: PageSamples) -> tuple[list[str], int]:
    """Fields whose value is on no line: nobody could read them there."""
    found, total = [], 0
    for one in documents:
        lines = lines_of(one.pages, samples.record)
        there = {question.name for question in known_questions(one.pages, lines, samples.record)["fields"]}
        for page in one.pages:
            for name, value in known_values(page).items():
                total += 1
                if name not in there:
                    found.append(f"{one.name}: {name} is {value[:40]!r}")
    return found, total
