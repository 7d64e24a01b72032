"""Documents as samples: what is asked is true of the page, what is hidden is hidden, documents are whole on one side."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from tests.layout.made import document
from tests.page.made import SHARED
from vertebra import config as configs
from vertebra.backbone.registry import load_backbone
from vertebra.data.model_facts import ModelFacts
from vertebra.decode.call import generate
from vertebra.errors import ConfigError, DataError
from vertebra.layout import MANNERS, PageRecord, lines_of, page_row
from vertebra.page import Line, Page, write_pages
from vertebra.page.metrics.answers import plain
from vertebra.page.paper.made import drawn_page
from vertebra.tasks import page_questions as questions
from vertebra.tasks.chain import read_data
from vertebra.tasks.config import DataConfig
from vertebra.tasks.page_questions import SORTS, QuestionDraft, drawn_questions, known_questions, without
from vertebra.tasks.page_samples import PageSamples
from vertebra.tasks.page_sets import PageDocument, PagesConfig, read_documents
from vertebra.tasks.pages import Pages, answers_to
from vertebra.tasks.task import Job
from vertebra.training.building import build_model
from vertebra.training.recipes import read_recipe

MANY = 30
RECORD = PageRecord(manner="added")


def job(name: str = "tiny-llama2", *, block: int = 500, seed: int = 0, options: dict[str, Any], **data: Any) -> Job:
    facts = ModelFacts.of_backbone(name, load_backbone(name, inference_mode=True), {})
    given = {"kind": "pages", "block": block, "options": options, "held_out": 0.25, **data}
    return Job(data=configs.build(DataConfig, given), model=facts, seed=seed)


def made(**given: Any) -> Any:
    return read_data(job(**given))


def asking(page: Page, seed: int, record: PageRecord = RECORD, **more: Any) -> QuestionDraft:
    lines = lines_of(page, record)
    return QuestionDraft(
        lines=lines,
        record=record,
        known=known_questions([page], lines, record),
        draw=np.random.default_rng(seed),
        **more,
    )


@pytest.mark.parametrize("sort", SORTS)
def test_what_is_asked_is_true_of_the_page(sort):
    seen = 0
    for seed in range(MANY):
        page = drawn_page("mixed", seed, 4)
        page = replace(
            page,
            facts={**page.facts, "questions": [{"question": "Whose?", "answers": ["nowhere", page.lines[0].text]}]},
        )
        given = asking(page, seed)
        question = SORTS[sort](given)
        if question is None:
            assert sort in ("geometry", "cells")
            continue
        seen += 1
        shown = without(given.lines, [question])
        by_text = {line.text: line for line in given.lines}
        if sort == "fields":
            assert page.facts["fields"][question.name] == question.answer
            assert question.text == f"What is the {question.name}?"
        elif sort == "questions":
            assert (question.text, question.answer) == ("Whose?", page.lines[0].text)
        elif sort == "value-by-box":
            (box,) = [part["box"] for part in question.parts if isinstance(part, dict)]
            (number,) = [line.number for line in given.lines if list(line.box) == box]
            name = page.lines[number].label
            assert name.endswith(".key")
            assert page.facts["fields"][name.removesuffix(".key")] == question.answer
        elif sort in ("text-by-box", "masked-text"):
            (box,) = [part["box"] for part in question.parts if isinstance(part, dict)]
            (own,) = [line for line in given.lines if list(line.box) == box]
            assert own.text == question.answer
            assert (question.answer in [line.text for line in shown]) == (sort == "text-by-box")
        elif sort in ("box-by-text", "masked-position"):
            own = by_text[question.text.split('"')[1]]
            assert [int(n) for n in question.answer.split()] == [round(n / 10) for n in own.box]
            (there,) = [line for line in shown if line.text == own.text]
            assert (there.box is None) == (sort == "masked-position")
        else:
            names = question.text.split('"')
            a = by_text[names[1]].box
            b = by_text[names[3] if sort == "geometry" else question.answer].box
            how = question.answer if sort == "geometry" else names[0].removeprefix("What stands ").strip()
            left, right = (a, b) if sort == "geometry" else (b, a)
            holds = {
                "left of": left[2] <= right[0],
                "right of": left[0] >= right[2],
                "above": left[3] <= right[1],
                "below": left[1] >= right[3],
            }
            assert holds[how], (how, a, b)
    assert seen > MANY // 3


def test_cells_are_the_nearest_of_all():
    """Beside the plain twin: every line to the right in the same row, every line below in the same column."""
    for seed in range(MANY):
        lines = lines_of(document(seed, lines=12, boxes=1.0), RECORD)
        for at, own in enumerate(lines):
            right = [
                (line.box[0], n)
                for n, line in enumerate(lines)
                if n != at and questions.relation(line, own) == "right of"
            ]
            found = questions.neighbor(lines, at, "right of")
            assert (found is None) == (not right)
            if right:
                assert lines[found].box[0] == min(right)[0]


def test_questions_do_not_give_each_other_away():
    weights = {"masked-text": 1.0, "masked-position": 1.0, "text-by-box": 1.0, "box-by-text": 1.0, "fields": 1.0}
    for seed in range(MANY):
        given = asking(drawn_page("mixed", seed, 6), seed)
        found = drawn_questions(given, weights, 8)
        shown = without(given.lines, found)
        assert len({one.text for one in found}) == len(found) > 0
        for one in found:
            for at, what in one.hides.items():
                assert shown[at].box is None if what == "box" else shown[at].text == questions.MASK
                others = [other for other in found if other is not one]
                if len(given.lines[at].text) > 3 and at in given.alone:
                    assert all(
                        given.lines[at].text not in other.text + other.answer for other in others if not other.hides
                    )


@pytest.mark.parametrize("manner", MANNERS)
def test_samples_are_drawn_anew_in_each_epoch_and_the_same_again(manner):
    found = made(options={"drawn": "mixed", "manner": manner, "turns": 3}, count=6)
    train, held_out = found.train, found.held_out
    assert len(train) == 6
    first, again, other = (train.sequence(2, epoch) for epoch in (0, 0, 1))
    assert first == again
    assert first.ids.tolist() != other.ids.tolist()
    assert held_out.sequence(0, 0) == held_out.sequence(0, 5)
    for index in range(6):
        sequence, extra = train.sequence(index, 3), train.extra(index, 3)
        assert len(sequence) <= train.lengths[index]
        assert sequence.supervised
        items = found.collator.features(extra)
        assert sequence.slot_count("boxes") == len(items.get("boxes", ()))
        assert (manner == "text") == (not items)


def test_rows_are_those_of_inference():
    """A sample's first question, asked alone about the same lines, begins as the sample does."""
    found = made(options={"drawn": "receipt", "manner": "doclaylm", "turns": 3, "learn": {"fields": 1}}, count=3)
    samples = found.held_out
    row = samples.row(0)
    asked = next(
        q for q in samples.views[0].known["fields"] if q.text in found.job.model.tokenizer.decode(row.sequence.ids)
    )
    (alone,), _ = samples.asking(0, [asked])
    whole = page_row(list(row.places.lines), [(asked.parts, None)], samples.record, samples.renderer)
    assert whole.sequence.ids[: whole.head].tolist() == row.sequence.ids[: row.head].tolist()
    assert {line.text for line in alone.places.lines} == {line.text for line in row.places.lines}


def test_documents_are_whole_on_one_side(tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()
    for number in range(8):
        page = drawn_page("mixed", number, 9)
        write_pages(page, folder / f"{number}.json")
    rows = [json.loads((folder / f"{n}.json").read_text())["pages"][0] for n in range(4)]
    (folder / "more.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert len(read_documents(str(folder))) == 12
    found = made(options={"manner": "laytext"}, path=str(folder))
    sides = [{view.document.name for view in side.views} for side in (found.train, found.held_out)]
    assert len(sides[0]) == 9
    assert len(sides[1]) == 3
    assert not sides[0] & sides[1]
    again = made(options={"manner": "laytext"}, path=str(folder), eval_path=str(folder / "0.json"))
    assert len(again.train) == 12
    assert [view.document.name for view in again.held_out.views] == ["0.json"]
    assert len(made(options={"manner": "laytext"}, path=str(folder), limit=5).train) == 5


def test_long_documents_become_windows():
    lines = [replace(line, words=()) for n in range(6) for line in drawn_page("receipt", n, 3).lines]
    facts = drawn_page("receipt", 1, 3).facts
    long = PageDocument(name="long", pages=(Page.of(lines, size=(3000, 3000), facts=facts),))
    samples = PageSamples(
        [long],
        job(options={"drawn": "receipt"}).model,
        PagesConfig(order="given", learn={"fields": 1.0, "text-by-box": 1.0}),
        size=400,
    )
    assert len(samples) > 3
    assert [line.number for view in samples.views for line in view.lines] == list(range(len(lines)))
    assert max(len(samples.sequence(index)) for index in range(len(samples))) <= 400
    assert "company" in [question.name for view in samples.views for question in view.known["fields"]]


def test_fields_that_are_absent_are_answered_so():
    found = made(
        options={"drawn": "receipt", "manner": "text", "missing": 1.0, "absent": "nothing", "learn": {"fields": 1}},
        count=8,
    )
    tokenizer = found.job.model.tokenizer
    for index in range(8):
        sequence = found.train.sequence(index)
        view = found.train.views[index]
        reply = tokenizer.decode(sequence.ids[sequence.weight > 0], skip_special_tokens=True)
        assert set(reply.split()) == {"nothing"}
        asked = tokenizer.decode(sequence.ids)
        assert not any(question.text in asked for question in view.known["fields"])


@pytest.mark.parametrize(
    ("options", "data", "match"),
    [
        ({}, {}, "nothing to read yet"),
        ({"drawn": "form"}, {"path": "x"}, "give one"),
        ({"drawn": "form", "learn": {}}, {}, "one of them above 0"),
        ({"drawn": "form", "manner": "text", "boxes": "word"}, {}, "boxes of words are added"),
        ({"drawn": "form", "ask": "What?"}, {}, "no place for {field}"),
        ({"manner": "text"}, {"path": "nowhere"}, "no file or folder `nowhere`"),
        ({"drawn": "form"}, {"block": 60, "count": 2}, "no line has room"),
        ({"drawn": "form", "image": True}, {"count": 2}, "no part for images"),
    ],
)
def test_what_is_refused(options, data, match):
    with pytest.raises(ConfigError, match=match):
        made(options=options, **data)


def test_names_of_sorts_and_long_answers():
    with pytest.raises(ConfigError, match="Did you mean `box-by-text`"):
        made(options={"drawn": "form", "learn": {"box-by-txt": 1}})
    with pytest.raises(DataError, match="longer than the 16 positions"):
        made(options={"drawn": "receipt", "reserve": 16, "manner": "text"}, count=2)


RECIPE = {
    "name": "pages",
    "model": {"backbone": "tiny-llama2", "scratch": True},
    "data": {
        "kind": "pages",
        "count": 4,
        "block": 500,
        "options": {"drawn": "form", "manner": "added", "encoder": "waves"},
    },
    "tune": {"stage": "vla-full-train"},
    "steps": 2,
}


def test_a_recipe_makes_a_model_that_remembers_how_it_reads(tmp_path):
    path = tmp_path / "pages.yaml"
    path.write_text(json.dumps(RECIPE))
    model = build_model(read_recipe(str(path))).eval()
    assert PageRecord.of(model.record).manner == "added"
    assert model.parts["boxes"].added
    samples = Pages().drawn(Job(data=read_recipe(str(path)).data, model=ModelFacts.of(model)))[0]
    asked = list(samples.alone())[:6]
    with torch.no_grad():
        found = {(number, q.text): answer for number, q, answer in answers_to(model, asked, samples)}
    for number, question in asked[:3]:
        rows, items = samples.asking(number, [question])
        alone = generate(model, model.collate([rows[0].sequence], [items[0]]), max_new_tokens=48).text[0].strip()
        assert found[number, question.text] == alone
    model.save(tmp_path / "model")
    other = read_recipe(
        str(path), [f"model.start={tmp_path / 'model'}", "model.scratch=false", "data.options.manner=doclaylm"]
    )
    with pytest.raises(ConfigError, match="`boxes` enters as `added` there, and as `slots` here"):
        build_model(other)


@pytest.mark.skipif(not (SHARED / "sroie-500.jsonl.gz").is_file(), reason="the real receipts are not here")
def test_real_receipts_are_read(tmp_path):
    some = tmp_path / "receipts.jsonl"
    with gzip.open(SHARED / "sroie-500.jsonl.gz", "rt", encoding="utf-8") as rows:
        some.write_text("".join(islice(rows, 40)), encoding="utf-8")
    found = made(options={"manner": "doclaylm", "reserve": 160}, path=str(some))
    views = [*found.train.views, *found.held_out.views]
    assert len({view.document.name for view in views}) == 40
    asked = [question for view in views for question in view.known["fields"]]
    assert {question.name for question in asked} == {"company", "date", "address", "total"}
    assert sum(question.name == "total" for question in asked) >= 39


def test_windows_without_anything_to_ask():
    page = Page.of([Line("alone", None)], size=(10, 10))
    bare, model = PageDocument(name="bare", pages=(page,)), job(options={"drawn": "form"}).model
    with pytest.raises(DataError, match="nothing to learn"):
        PageSamples([bare], model, PagesConfig(), size=256)
    asked = PageDocument(name="asked", pages=(drawn_page("form", 1),))
    assert [view.document.name for view in PageSamples([bare, asked], model, PagesConfig(), size=256).views] == [
        "asked"
    ]
    # of a line without a place nothing can be asked; it is still read
    samples = PageSamples([bare, asked], model, PagesConfig(learn={"text-by-box": 1.0}), size=256)
    assert len(samples) == 2
    assert samples.sequence(0).supervised


def test_a_report_and_pictures(tmp_path):
    page = drawn_page("receipt", 1, 2)
    lines = [replace(page.lines[0], box=None), *page.lines[1:], Line(" ", None)]
    wrong = replace(
        page, lines=tuple(lines), facts={"fields": {"total": "1,234,567.00", "company": page.lines[0].text}}
    )
    folder = tmp_path / "pages"
    folder.mkdir()
    write_pages(wrong, folder / "wrong.json")
    write_pages(drawn_page("form", 2), folder / "right.json")
    given = job(options={"manner": "added"}, path=str(folder), held_out=0.5)
    report = Pages().checked(given)
    assert report.passed
    assert report.finding("documents").value == "2"
    assert (report.finding("boxes").status, report.finding("boxes").value) == ("note", f"2 of {len(lines) + 14}")
    assert report.finding("fields").places == ("wrong.json: total is '1,234,567.00'",)
    found = read_data(given)
    picture = found.task.pictured(found.train, 0)
    assert min(picture.size) > 100
    assert len(set(picture.convert("L").tobytes())) > 2
    limited = read_data(job(options={"drawn": "form", "manner": "text"}, count=4, limit=2))
    assert limited.task.pictured(limited.train, 1).size


def test_lines_that_can_be_asked_about_are_those_of_a_plain_look():
    for seed in range(MANY):
        given = asking(drawn_page("mixed", seed, 9), seed)
        given.lines = [
            replace(line, box=None if n % 5 == 0 else line.box, text="x" * 41 if n % 7 == 3 else line.text)
            for n, line in enumerate([*given.lines, given.lines[1]])
        ]
        given.hidden = {2, 4} if seed % 2 else set()
        texts = [plain(line.text) for line in given.lines]
        for text in (False, True):
            for box in (False, True):
                fit = [
                    n
                    for n, line in enumerate(given.lines)
                    if n not in given.hidden
                    and len(line.text) <= questions.LONGEST
                    and not (box and line.box is None)
                    and not (text and texts.count(texts[n]) > 1)
                ]
                given.draw = np.random.default_rng(seed)
                expected = fit[int(np.random.default_rng(seed).integers(len(fit)))]
                assert given.line(text=text, box=box) == expected


def test_what_a_report_shows_draws_nothing_to_train_on(monkeypatch):
    """A recipe of 4,000 pages drew them three times: to train, and before and after for eight answers."""
    from vertebra.page.paper import made as paper

    drawn: list[int] = []
    make = paper.drawn_page

    def counted(kind, number, seed, **more):
        drawn.append(seed)
        return make(kind, number, seed, **more)

    monkeypatch.setattr(paper, "drawn_page", counted)
    recipe = read_recipe("receipts-drawn", ["data.count=40", "data.held_out=0.1"])
    model = build_model(recipe).eval()
    shown = recipe.task.shown(model, Job(data=recipe.data, model=ModelFacts.of(model), seed=0), [], 4)
    assert len(shown) == 8
    assert drawn == [1] * 4, "the held-out pages, once"
