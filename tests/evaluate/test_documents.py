"""Documents: what is asked and what is evidence, arms that change one thing, rates and pairs as counted by hand."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import pytest

from vertebra.documents.asking import UNTRAINED
from vertebra.documents.settings import ExtractSettings
from vertebra.errors import ConfigError, DataError, UnknownNameError
from vertebra.evaluate import AnswerRecord, DocumentResults, evaluate_documents, mcnemar, paired_difference, wilson
from vertebra.evaluate.documents.arms import MODEL, PLAIN, document_arms
from vertebra.evaluate.documents.asked import asked_of, evidence, relative_boxes, require_asked, type_of
from vertebra.evaluate.documents.results import mean_interval, summary
from vertebra.interop.load import load
from vertebra.layout.record import PAGE
from vertebra.page import Box, Line, Page, Word
from vertebra.page.values import known_values

TEXTS = ["ACE SHOP", "NO. 5, JALAN ABU", "81100 JOHOR", "DATE: 25/12/2018", "TOTAL RM 9.50", "CASH RM 9.50"]


def page(number: int = 1) -> Page:
    lines = [
        Line(
            text,
            Box(0, 10 * n, 90, 10 * n + 9),
            words=tuple(Word(word, Box(0, 10 * n, 5, 10 * n + 9)) for word in text.split()),
        )
        for n, text in enumerate(TEXTS)
    ]
    fields = {"company": "ACE SHOP", "date": "25/12/2018", "address": "NO. 5, JALAN ABU 81100 JOHOR", "total": "9.50",
              "gst": None, "menu": [{"nm": "tea"}]}  # fmt: skip
    questions = [{"question": "Who sold it?", "answers": ["ACE SHOP", "ace"]}, {"question": "And now?", "answers": []}]
    return Page.of(
        lines, size=(100, 60), number=number, name=f"p{number}", facts={"fields": fields, "questions": questions}
    )


def test_what_is_asked_and_where_it_stands():
    asked = {one.field.name: one for one in asked_of(page(), across=("address",))}
    assert list(asked) == ["company", "date", "address", "total", "gst", "Who sold it?"]
    assert [one.kind for one in asked.values()] == ["text", "date", "text", "amount", "absent", "text"]
    assert asked["address"].field.across
    assert asked["Who sold it?"].golds == ("ACE SHOP", "ace")
    assert asked["Who sold it?"].field.question == "Who sold it?"
    assert evidence(page(), asked["total"].golds) == [4, 5]
    assert evidence(page(), asked["address"].golds) == [1, 2]
    assert evidence(page(), ("nowhere",)) == []
    assert relative_boxes(page(), [1]) == [Box(0, pytest.approx(1 / 6), 0.9, pytest.approx(19 / 60))]
    assert [type_of(one) for one in ("RM 9.50", "25 Dec 2018", "Jalan 25/12/2018 Abu Bakar", "B-12 Street")] == [
        "amount", "date", "text", "text"
    ]  # fmt: skip


def test_fields_are_asked_for_by_the_names_that_training_uses():
    """CORD's are in groups, FUNSD's are links; both name a field by blanks, and take underscores."""
    cord = replace(
        page(), facts={"fields": {"total": {"total_price": "9.50", "cash_price": None}, "menu": [{"nm": "a"}]}}
    )
    assert {one.field.name: one.golds for one in asked_of(cord)} == {
        "total total price": ("9.50",), "total cash price": ()
    }  # fmt: skip
    for name in ("total_total_price", "total total price"):
        assert [one.golds for one in asked_of(cord, [name])] == [("9.50",)]
        require_asked([cord], [name])
    funsd = replace(page(), facts={"links": [[4, 5], [3, 0], [3, 1]]})
    assert {one.field.name: one.golds for one in asked_of(funsd)} == {
        "TOTAL RM 9.50": ("CASH RM 9.50",), "DATE: 25/12/2018": ("ACE SHOP NO. 5, JALAN ABU",)
    }  # fmt: skip
    for made in (cord, funsd):
        assert known_values(made) == {one.field.name: one.golds[0] for one in asked_of(made) if one.golds}
    with pytest.raises(UnknownNameError, match="total cash price"):
        require_asked([cord], ["total_cash"])


def test_pages_without_a_word_are_refused():
    """DocVQA's own file has questions and no text: an evaluation of it would be of nothing, and 0 %."""
    bare = replace(page(), lines=())
    with pytest.raises(DataError, match="questions and not one line of text"):
        require_asked([bare, bare], None)
    require_asked([bare, page()], None)


def test_arms_change_one_thing():
    given, chance = page(), random.Random(0)
    bare = PLAIN["no-boxes"].change(given, chance)
    assert bare.text == given.text
    assert all(line.box is None and not line.words for line in bare.lines)
    moved = PLAIN["boxes-shuffled"].change(given, chance)
    assert moved.text == given.text
    assert sorted(line.box for line in moved.lines) == sorted(line.box for line in given.lines)
    assert [line.box for line in moved.lines] != [line.box for line in given.lines]
    assert not any(line.words for line in moved.lines)
    mixed = PLAIN["lines-shuffled"].change(given, chance)
    assert sorted(mixed.lines, key=lambda line: line.box) == list(given.lines)
    assert mixed.text != given.text
    assert [arm.name for arm in document_arms("no-boxes, other=x")] == [MODEL, "no-boxes", "other"]
    for wrong, error in (
        ("no-boxs", UnknownNameError),
        ("no-boxes,no-boxes", ConfigError),
        ("ocr=teseract", UnknownNameError),
    ):
        with pytest.raises(error):
            document_arms(wrong)


@cache
def model():
    return load("tiny-smollm2", weights=True, inference_mode=True)


class Engine:
    """Reads every page as half of its lines, upper half alone."""

    name = "half"

    def read(self, image):
        lines = [Line(text, Box(0, 20 * n, 180, 20 * n + 18)) for n, text in enumerate(TEXTS[:5])]
        return Page.of(lines, size=image.size)


def test_an_evaluation(monkeypatch):
    from PIL import Image

    from vertebra.evaluate.documents import arms

    monkeypatch.setattr(arms, "engine", lambda name: Engine())
    monkeypatch.setattr(arms, "read_picture", lambda image, by: by.read(image))
    pages = [replace(page(number), image=Image.new("RGB", (200, 120))) for number in (1, 2)]
    seen = []
    results = evaluate_documents(
        model(), pages, arms="no-boxes,no-pixels,boxes-shuffled,lines-shuffled,written,ocr,same=x", seeds=2, each=seen.append,
        loaded=lambda name: model(), settings=ExtractSettings(max_new_tokens=5),
    )  # fmt: skip
    assert list(results.records) == seen
    count = {arm: len(results.of(arm)) for arm in results.arms}
    assert count == {
        "model": 12,
        "no-boxes": 24,
        "no-pixels": 12,
        "boxes-shuffled": 24,
        "lines-shuffled": 24,
        "written": 12,
        "ocr": 24,
        "same": 12,
    }
    copied = [one for one in results.records if one.arm != "written"]
    assert all(one.stands for one in copied)
    for one in results.records:
        assert one.exact == ((one.answer or "").strip() in one.golds if one.golds else one.answer is None)
        assert one.same >= one.exact
        assert (one.line_f1 is None) == (not one.golds or one.arm == "written")
    by_arm = {one.arm: one for one in results.paired}
    assert by_arm["same"].difference == by_arm["same"].anls == 0
    assert by_arm["no-boxes"].count == 24
    # a model of words alone sees neither boxes nor their shuffling
    assert by_arm["no-boxes"].difference == by_arm["boxes-shuffled"].difference == 0
    plain = results.to_json()
    assert set(plain["arms"]["model"]["fields"]) == {"company", "date", "address", "total", "gst", "Who sold it?"}
    assert set(plain["arms"]["model"]["types"]) == {"text", "date", "amount", "absent"}
    assert 0 <= plain["ece"] <= 1
    one_field = evaluate_documents(model(), pages, fields=["total"], settings=ExtractSettings(max_new_tokens=5))
    assert [one.answer for one in one_field.records] == [
        one.answer for one in results.of("model") if one.field == "total"
    ]


def test_lines_that_are_shuffled_stay_so():
    """A model that sorts lines itself would undo the arm."""
    sorting = load("tiny-smollm2", weights=True, inference_mode=True)
    sorting.record[PAGE] = {**UNTRAINED.to_json(), "order": "top"}
    (arm,) = document_arms("lines-shuffled")[1:]
    from vertebra.evaluate.documents.running import _order

    assert _order(sorting, arm)["record"].order == "given"
    assert _order(sorting, document_arms("")[0]) == {}


def record(arm: str, number: int, exact: bool, anls: float = 0.0, confidence: float = 0.5) -> AnswerRecord:
    return AnswerRecord(
        arm=arm, page=number, seed=0, field="total", kind="amount", golds=("1",), answer="1", confidence=confidence,
        exact=exact, same=exact, anls=anls, line_f1=None, box_hits=0.5, stands=True,
    )  # fmt: skip


def test_numbers_by_hand():
    draw = random.Random(3)
    rows = [(draw.random() < 0.7, draw.random() < 0.4, draw.random(), draw.random()) for _ in range(40)]
    ours = [record("model", n, a, x, confidence=0.9 if a else 0.6) for n, (a, _, x, _) in enumerate(rows)]
    theirs = [record("other", n, b, y) for n, (_, b, _, y) in enumerate(rows)]
    results = DocumentResults(model="m", records=(*ours, *theirs))
    (pair,) = results.paired
    both, first = sum(a and b for a, b, *_ in rows), sum(a and not b for a, b, *_ in rows)
    second = sum(b and not a for a, b, *_ in rows)
    assert (pair.difference, pair.low, pair.high) == paired_difference(both, first, second, 40 - both - first - second)
    assert pair.p == mcnemar(first, second)
    assert pair.anls == pytest.approx(sum(x - y for _, _, x, y in rows) / 40)
    whole = summary(ours)
    assert (whole.exact_low, whole.exact_high) == wilson(both + first, 40)
    assert (whole.line_f1, whole.box_hits) == (None, 0.5)
    fitted, left = results.calibrated()
    assert left < results.ece
    assert fitted(0.9) > fitted(0.6)
    assert DocumentResults(model="m", records=(ours[0],)).calibrated()[0].answers == 1
    assert mean_interval([]) == (0.0, 0.0, 1.0)
    assert mean_interval([0.5]) == (0.5, 0.0, 1.0)


def test_mistakes():
    with pytest.raises(DataError, match="no answers to hold"):
        evaluate_documents(model(), [Page.of([Line("a", Box(0, 0, 1, 1))], size=(1, 1))])
    with pytest.raises(UnknownNameError, match="Did you mean `total`"):
        evaluate_documents(model(), [page()], fields=["totl"])
