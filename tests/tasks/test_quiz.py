"""Drawn questions: their answers follow from what is drawn, held-out ones hold what training never shows."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.backbone.registry import load_backbone
from vertebra.config import build
from vertebra.data.model_facts import ModelFacts
from vertebra.decode.call import generate
from vertebra.errors import ConfigError
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.fresh import new_part
from vertebra.model.model import Model
from vertebra.tasks import quiz
from vertebra.tasks.config import DataConfig
from vertebra.tasks.look import COLORS, MOST, NUMBERS, SIZE, UNSEEN, Look, LookConfig, LookScene
from vertebra.tasks.orders import Orders, is_unseen
from vertebra.tasks.quiz import Item, QuizQuestion, Quizzes
from vertebra.tasks.task import HeldOut, Job

MANY = 400
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@pytest.fixture(scope="module")
def model() -> Model:
    backbone = load_backbone("tiny-smollm2", dtype="float32", inference_mode=True, weights=True)
    torch.manual_seed(0)
    return Model(backbone, {"image": new_part(backbone, PatchEncoder(8, image_size=SIZE, patch_size=28))}).eval()


def job(model: Any, kind: str, **data: Any) -> Job:
    return Job(data=build(DataConfig, {"kind": kind, "block": 256, **data}), model=ModelFacts.of(model))


@pytest.mark.parametrize("held_out", [False, True])
def test_an_orders_answer_is_what_it_orders(held_out: bool):
    unseen = 0
    for number in range(MANY):
        (question,) = Orders().item(7, number, quiz.QuizConfig(), held_out=held_out).questions
        answer = json.loads(question.answer)
        assert list(answer) == ["item", "color", "count"]
        text = question.text.lower()
        assert answer["color"] in text
        assert answer["item"].rstrip("f") in text or answer["item"][:-1] in text
        word = WORDS[answer["count"] - 1]
        assert word in text or str(answer["count"]) in text
        unseen += is_unseen(answer["item"], answer["color"])
    assert (unseen > 0) == held_out


def _answer(scene: LookScene, text: str) -> str:
    """By reading the question as a person would."""
    words = text.rstrip("?").split()
    things = scene.things
    if text == "What is where?":
        rows, columns = ("top ", "", "bottom "), ("left", "", "right")
        places = [
            (thing, (rows[3 * thing.y // SIZE] + columns[3 * thing.x // SIZE]).strip() or "middle") for thing in things
        ]
        places.sort(key=lambda found: (3 * found[0].y // SIZE, 3 * found[0].x // SIZE))
        return ", ".join(f"{place} {thing.color} {thing.shape}" for thing, place in places)
    if text.startswith("What color"):
        (found,) = [thing.color for thing in things if thing.shape == words[-1]]
        return found
    if text.startswith("What shape"):
        (found,) = [thing.shape for thing in things if thing.color == words[-2]]
        return found
    if text.startswith("How many"):
        return NUMBERS[sum(words[-1] in ("there", thing.color) for thing in things)]
    (a,) = [thing for thing in things if (thing.color, thing.shape) == (words[2], words[3])]
    (b,) = [thing for thing in things if (thing.color, thing.shape) == (words[-2], words[-1])]
    return "yes" if (a.x < b.x if "left" in text else a.y < b.y) else "no"


@pytest.mark.parametrize("held_out", [False, True])
def test_a_pictures_answers_are_what_it_shows(held_out: bool):
    look, sorts, kinds = Look(), Counter(), Counter()
    for number in range(MANY):
        item = look.item(3, number, LookConfig(), held_out=held_out)
        scene = LookScene.drawn(np.random.default_rng([3, number]), unseen=held_out and number % 2 == 1)
        assert item.picture == scene.picture()
        assert 1 <= len(item.questions) <= MOST + 1
        assert len({question.text for question in item.questions}) == len(item.questions)
        for question in item.questions:
            assert question.answer == _answer(scene, question.text), question.text
            sorts[question.sort] += question.sort != "all"
            kinds[question.sort, question.answer] += 1
        assert ("all" in {question.sort for question in item.questions}) != held_out
        unseen = [thing for thing in scene.things if thing.kind in UNSEEN]
        assert len(unseen) == (held_out and number % 2)
        pixels = np.asarray(Image.open(io.BytesIO(item.picture or b"")))
        assert pixels.shape == (SIZE, SIZE, 3)
        for thing in scene.things:  # in the middle every shape is filled
            assert np.abs(pixels[thing.y, thing.x].astype(int) - COLORS[thing.color]).max() <= 2
    del sorts["all"]
    assert min(sorts.values()) > 0.1 * sum(sorts.values())
    for sort in sorts:  # no answer is so frequent that it need not be looked for
        counts = [count for (own, _), count in kinds.items() if own == sort]
        assert max(counts) < (0.6 if sort in ("relation", "count") else 0.45) * sum(counts)


def test_items_are_the_same_in_every_process():
    first, again = (Look().item(0, 5, LookConfig(), held_out=False) for _ in range(2))
    assert first == again
    assert first != Look().item(0, 6, LookConfig(), held_out=False)


def test_pictures_of_one_thing(model):
    quizzes = Quizzes(Look(), job(model, "look", options={"things": 1}), 30)
    assert {question.answer for item in quizzes.items for question in item.questions if question.sort == "count"} <= {
        "zero",
        "one",
    }
    with pytest.raises(ConfigError, match=r"things.*at most 4"):
        Quizzes(Look(), job(model, "look", options={"things": 5}), 1)


def test_training_rows_hold_as_many_questions_as_fit(model):
    wide, narrow = (Quizzes(Look(), job(model, "look", block=block), 20) for block in (256, 80))
    assert wide.lengths.max() > 80 >= narrow.lengths.max()
    sequence = wide.sequence(0)
    text = model.tokenizer.decode(sequence.ids[sequence.weight > 0].tolist())
    for question in wide.items[0].questions:
        assert question.answer in text
    assert (sequence.slot[:, 0] >= 0).sum() == model.sizes["image"]
    with pytest.raises(ConfigError, match=r"one question and its answer take .* give data.block="):
        Quizzes(Look(), job(model, "look", block=16), 2)


def test_a_held_out_question_begins_as_training_did(model):
    """A prompt is the beginning of the sample whose first question it is."""
    quizzes = Quizzes(Look(), job(model, "look"), 4)
    for number, item in enumerate(quizzes.items):
        prompt, sample = quizzes.asking(number, item.questions[0]), quizzes.sequence(number)
        assert prompt.ids.tolist() == sample.ids[: len(prompt)].tolist()
        assert np.flatnonzero(sample.weight > 0)[0] == len(prompt)


def test_shuffled_pictures_are_another_items(model):
    plain, shuffled = (Quizzes(Look(), job(model, "look", shuffled_images=given), 5) for given in (False, True))
    assert [shuffled.picture(n) for n in range(5)] == [plain.picture((n + 1) % 5) for n in range(5)]
    assert plain.fingerprint() != shuffled.fingerprint()


def test_marks_are_counted_by_sort(model, monkeypatch):
    """The first of two is answered right, a color; the count is not."""
    item = Item(
        questions=(
            QuizQuestion(text="a?", answer="red", sort="color"),
            QuizQuestion(text="b?", answer="two", sort="count"),
        )
    )
    monkeypatch.setattr(Look, "item", lambda *_, **__: item)
    monkeypatch.setattr(quiz, "answers_to", lambda model, asked, *_: ["red" for _ in asked])
    look = Look()
    held_out = look.drawn(job(model, "look", count=10, held_out=0.4, options={"asked": 6}))[1]
    found = look.measure(lambda call: call(model), HeldOut(samples=held_out, batches=lambda: ()))
    assert found == {"accuracy": 4 / 6, "color": 1.0, "count": 0.0, "guessing": 1.0}
    assert list(found) == ["accuracy", "color", "count", "guessing"]


def test_guessing_is_what_frequencies_allow(model):
    """By hand: the most frequent training answer to each question."""
    quizzes = Quizzes(Look(), job(model, "look"), 60, held_out=True)
    asked = list(quizzes.alone())[:100]
    answers: dict[str, list[str]] = {}
    for number in range(quiz.LEARNED):
        for question in Look().item(0, number, LookConfig(), held_out=False).questions:
            answers.setdefault(question.text, []).append(question.answer)
    right = 0
    for _, question in asked:
        known = answers[question.text] if question.text in answers else [
            one.answer
            for number in range(quiz.LEARNED)
            for one in Look().item(0, number, LookConfig(), held_out=False).questions
            if one.sort == question.sort
        ]  # fmt: skip
        most = max(Counter(known).values())
        right += next(answer for answer in known if Counter(known)[answer] == most) == question.answer
    assert quizzes.guessed(asked) == right / 100
    assert 0.2 < right / 100 < 0.5


def test_answers_are_those_of_each_question_alone(model):
    """Batches of ragged prompts with pictures, against one prompt at a time."""
    quizzes = Quizzes(Look(), job(model, "look"), 12)
    asked = list(quizzes.alone())[:40]
    assert len(asked) > quiz.AT_ONCE
    assert [number for number, _ in asked][:12] == list(range(12))
    features = quizzes.quiz.features(quizzes.job)
    assert features is not None
    plain = []
    for number, question in asked:
        batch = model.collate([quizzes.asking(number, question)], [dict(features(quizzes.extra(number)))])
        plain.append(generate(model, batch, max_new_tokens=4).text[0].strip())
    assert list(quiz.answers_to(model, asked, quizzes, 4)) == plain


def test_what_the_report_shows(model):
    rows = Look().shown(model, job(model, "look"), ["What is it?"], 4)
    assert len(rows) == quiz.SHOWN + 1
    assert all("image" in row and (" – wrong: " in row["answer"] or " – right" in row["answer"]) for row in rows[:-1])
    assert rows[-1]["prompt"] == "What is it?"


@pytest.mark.parametrize("side", [4, 8])
def test_slots_are_asked_for_a_word_of_what_they_show(side: int):
    backbone = load_backbone("tiny-smollm2", dtype="float32", inference_mode=True, weights=True)
    part = new_part(backbone, PatchEncoder(8, image_size=SIZE, patch_size=SIZE // side))
    wide = Model(backbone, {"image": part}).eval()
    plain, asked = (
        Quizzes(Look(), job(wide, "look", options={"questions": 0, "slots": slots}), 40) for slots in (0.0, 0.5)
    )
    tokenizer, seen = backbone.tokenizer, Counter()
    for number, item in enumerate(asked.items):
        vectors, without = asked.vectors(number), plain.vectors(number)
        at = np.flatnonzero(vectors["slot"][:, 0] >= 0)
        assert len(at) == side**2
        assert np.array_equal(vectors["ids"], without["ids"])
        others = np.setdiff1d(np.arange(len(vectors["ids"])), at[:-1] + 1)
        assert all(np.array_equal(vectors[name][others], without[name][others]) for name in ("target", "weight"))
        part_size = SIZE / side
        for place, position in enumerate(at[:-1]):
            middle = [(place % side + 0.5) * part_size, (place // side + 0.5) * part_size]
            words = {"nothing"}
            distances = [max(abs(thing.x - middle[0]), abs(thing.y - middle[1])) for thing in item.scene.things]
            if min(distances) < 0.75 * part_size:
                near = item.scene.things[int(np.argmin(distances))]
                words = {near.color, near.shape}
            first = {tokenizer(f" {word}", add_special_tokens=False).input_ids[0]: word for word in words}
            assert int(vectors["target"][position + 1]) in first
            assert vectors["weight"][position + 1] == pytest.approx(0.1 if words == {"nothing"} else 0.5)
            seen[first[int(vectors["target"][position + 1])]] += 1
    assert {*COLORS, "circle", "square", "triangle", "cross", "nothing"} == set(seen)


def test_slots_that_are_no_square_of_them_are_refused(model):
    item = Look().item(0, 0, LookConfig(), held_out=False)
    with pytest.raises(ConfigError, match="12 slots"):
        Look().slot_words(item, 12, LookConfig(slots=1.0))
