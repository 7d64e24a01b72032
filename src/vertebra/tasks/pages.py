"""Kind `pages`, documents: lines with their places, and questions about them; fields of receipts and forms, and
pre-training of any pages.

    <s> (▣×196) Invoice 4711 ▢ ↵ Total 9.50 ▢ ↵ …  What is the total? │ 9.50 </s>  Where is "Invoice 4711"? │ 4 3 30 6 </s>

Whole documents are held out. What it makes is a model that can be asked about documents: `Model.record["page"]` says how.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from vertebra.data.samples.samples import Picked, Samples
from vertebra.errors import ConfigError, DataError
from vertebra.layout.manners import BOXES
from vertebra.layout.record import PAGE
from vertebra.page.metrics.answers import anls
from vertebra.sequence.tokens import TokenSequence
from vertebra.tasks.config import DataConfig
from vertebra.tasks.page_questions import PageQuestion, require_sorts
from vertebra.tasks.page_samples import PageItems, PageSamples, renderer_for
from vertebra.tasks.page_sets import PageDocument, PagesConfig, documents, held_out_documents
from vertebra.tasks.task import Features, HeldOut, Job, NewEncoder, Task

SHOWN = 8
LONGEST = 48
"""Tokens of an answer."""


class Pages(Task):
    """Questions about documents."""

    name: ClassVar[str] = "pages"
    settings: ClassVar[tuple[str, ...]] = ("path", "pattern", "eval_path", "count", "block")
    Options: ClassVar[type | None] = PagesConfig
    supervised: ClassVar[float] = 0.1

    def options(self, data: DataConfig) -> PagesConfig:
        made: PagesConfig = super().options(data)
        require_sorts(made.learn)
        faults = []
        if data.path is not None and made.drawn is not None:
            faults.append(
                f"it has a path ({data.path}) and documents to draw (data.options.drawn={made.drawn}); give one"
            )
        if made.alike and (made.digits is None or made.digits < 2):
            faults.append(f"values that are alike (data.options.alike={made.alike}) have two digits or more (digits)")
        if made.drawn is not None and data.eval_path is not None:
            faults.append("drawn documents are held out by `held_out`, and not read from eval_path")
        if not any(weight > 0 for weight in made.learn.values()) or any(weight < 0 for weight in made.learn.values()):
            faults.append(f"data.options.learn is {made.learn}; expected weights from 0 on, one of them above 0")
        if faults:
            raise ConfigError(f"kind `pages`: {'; '.join(faults)}")
        _ = made.record  # what contradicts itself shows here
        return made

    def tiny(self, data: DataConfig) -> DataConfig:
        """Short rows: a question each, and few that are asked; drawn documents where there are none yet."""
        own = {"turns": 1, "reserve": 64, "asked": 4}
        drawn = {"drawn": "receipt"} if data.path is None and data.options.get("drawn") is None else {}
        return replace(data, options={**data.options, **own, **drawn})

    def sees(self, data: DataConfig) -> bool:
        return bool(self.options(data).image)

    def encoders(self, data: DataConfig) -> Mapping[str, NewEncoder]:
        options = self.options(data)
        how = options.record.how
        if not how.boxes:
            return {}
        make = partial(_box_encoder, options.encoder, options.size, options.frequencies)
        return {BOXES: NewEncoder(encoder=make, projector=options.projector, place=how.place)}

    def record(self, data: DataConfig, backbone: Any) -> Mapping[str, Any]:
        return {PAGE: self.options(data).record.to_json()}

    def features(self, job: Job) -> Features | None:
        return PageItems(job.model)

    def drawn(self, job: Job) -> tuple[Samples, Samples | None]:
        options = self.options(job.data)
        renderer_for(job.model, options.record)  # a model that cannot read them shows before any is drawn
        train, apart = documents(job.data, options, job.seed)
        made = PageSamples(train, job.model, options, size=job.size, seed=job.seed)
        return made, _held_out(job, options, apart)

    def checked(self, job: Job) -> Any:
        from vertebra.tasks.page_report import report_of

        train, apart = self.drawn(job)
        return report_of(train, apart, source=job.data.named)  # type: ignore[arg-type]

    def pictured(self, samples: Samples, index: int, epoch: int = 0) -> Any:
        """The first page of a sample with its lines, boxes and slots."""
        from vertebra.layout.drawing import drawn_row

        if isinstance(samples, Picked):
            index, samples = int(samples.indices[index]), samples.samples
        if not isinstance(samples, PageSamples):
            return None
        row, document = samples.row(index, epoch), samples.views[index].document
        page = next(page for page in document.pages if page.number == row.places.lines[0].page)
        return drawn_row(row, page, document.pictures[page.number]() if page.number in document.pictures else None)

    def measure(self, learner: Any, held_out: HeldOut) -> dict[str, float]:
        samples = getattr(held_out.samples, "samples", held_out.samples)
        if not isinstance(samples, PageSamples):
            return {}
        return dict(learner(call=partial(_marks, samples=samples)))

    def shown(self, model: Any, job: Job, prompts: Sequence[str], length: int) -> list[dict[str, str]]:
        """Answers to questions about held-out documents, each with its page."""
        options = self.options(job.data)
        apart = _held_out(job, options, held_out_documents(job.data, options, job.seed))
        if apart is None:
            return []
        asked = [one for _, one in zip(range(SHOWN), apart.alone(), strict=False)]
        found = []
        for number, question, answer in answers_to(model, asked, apart, length):
            verdict = "right" if answer == question.answer else f"wrong: {question.answer}"
            row = {"prompt": question.text, "answer": f"{answer} – {verdict}"}
            found.append(row | {"image": drawn_view(apart, number)})
        own = [PageQuestion(parts=(text,), answer="", sort="questions") for text in prompts]
        first = [(0, one) for one in own] if len(apart) else []
        return found + [
            {"prompt": q.text, "answer": answer} for _, q, answer in answers_to(model, first, apart, length)
        ]

    def prompt(self, text: str, job: Job) -> TokenSequence:
        raise DataError("a question about documents is asked of a page; `vertebra doc ask` does it")


def _held_out(job: Job, options: PagesConfig, apart: Sequence[PageDocument]) -> PageSamples | None:
    return PageSamples(apart, job.model, options, size=job.size, seed=job.seed, fixed=True) if apart else None


def _box_encoder(name: str, size: int, frequencies: int) -> Any:
    from vertebra.model.encoders.boxes import BoxTables, BoxWaves

    return BoxTables(size) if name == "tables" else BoxWaves(frequencies)


def answers_to(
    model: Any, asked: Sequence[tuple[int, PageQuestion]], samples: PageSamples, longest: int = LONGEST
) -> Iterator[tuple[int, PageQuestion, str]]:
    """Greedy answers to questions, each asked alone; a page is computed once for all that are asked about it."""
    import torch

    from vertebra.decode.call import generate
    from vertebra.decode.prefilled import Prefilled
    from vertebra.decode.start import eval_mode

    by_view: dict[int, list[PageQuestion]] = {}
    for number, question in asked:
        by_view.setdefault(number, []).append(question)
    for number, questions in by_view.items():
        rows, features = samples.asking(number, questions)
        pairs = [(row.sequence, own or None) for row, own in zip(rows, features, strict=True)]
        with eval_mode(model), torch.random.fork_rng(devices=[]):
            page = Prefilled(model, *pairs[0], upto=rows[0].head)
            made = generate(model, page.begin(pairs), max_new_tokens=longest)
        for question, text in zip(questions, made.text, strict=True):
            yield number, question, text.strip()


def _marks(model: Any, samples: PageSamples) -> dict[str, float]:
    """The share of exact answers, and ANLS, of all questions and of each sort and field."""
    most = samples.options.asked
    asked = [one for _, one in zip(range(most), samples.alone(), strict=False)]
    right: dict[str, list[float]] = {}
    near: list[float] = []
    for number, question, answer in answers_to(model, asked, samples):
        sorts = samples.views[number].document.pages[0].facts.get("sorts") or {}
        counted = question.name if question.name in samples.options.fields else sorts.get(question.name)
        for name in dict.fromkeys(("accuracy", counted or question.sort)):
            right.setdefault(name, []).append(float(answer == question.answer))
        near.append(anls(answer, [question.answer]))
    found = {name: float(np.mean(values)) for name, values in right.items()}
    return found | ({"anls": float(np.mean(near))} if near else {})


def drawn_view(samples: PageSamples, index: int) -> str:
    """A window's first page with its boxes, as a PNG in base64."""
    import base64
    import io

    from vertebra.page.drawing import drawn

    view = samples.views[index]
    page = next(page for page in view.document.pages if page.number == view.lines[0].page)
    file = io.BytesIO()
    drawn(page, words=False).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
