"""Rows of pages beside what is plain to see: texts found again from places, slots where a manner puts them, safe words."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tests.layout.made import document, model, picture
from vertebra.errors import ConfigError, DataError, PromptError
from vertebra.layout import PagePlace, PageRecord, Renderer, box_part, lines_of, page_row, shuffled
from vertebra.layout.manners import MANNERS
from vertebra.page import Document, Line, Page, Word
from vertebra.sequence.roles import Role

FAMILIES = ("tiny-llama2", "tiny-gpt2", "tiny-qwen2.5", "tiny-gemma2")
ALL = [(family, manner) for family in FAMILIES for manner in MANNERS]


def made(family: str, manner: str, seed: int, turns=(("What is it?", None),), *, pages: int = 2, patches=False, **more):
    one = model(family, manner, patches=patches, **more)
    record, renderer = PageRecord.of(one.record), Renderer.of(one)
    lines = shuffled(lines_of(document(seed, pages), record), np.random.default_rng(seed))
    images = {number: picture(number) for number in (1, 2)} if patches else None
    return one, lines, page_row(lines, turns, record, renderer, images=images)


@pytest.mark.parametrize(("family", "manner"), ALL)
def test_places_lead_back_to_every_line_and_word(family, manner):
    one, lines, row = made(family, manner, 3)
    sequence, places = row.sequence, row.places
    own = sequence.slot[:, 0] < 0 if manner != "added" else np.ones(len(sequence), bool)
    assert len(places) == len(sequence)
    for line in lines:
        at = places.at(line.page, line.number)
        text = one.tokenizer.decode(sequence.ids[at[own[at]]])
        assert text.split() == line.text.split()
        assert set(sequence.role[at].tolist()) == {Role.PAGE}
        assert np.array_equal(at, np.arange(at[0], at[-1] + 1))  # a line is one span
        for number, word in enumerate(line.words):
            inside = places.at(line.page, line.number, number)
            assert word in one.tokenizer.decode(sequence.ids[inside])
            assert places.of(int(inside[0])) == PagePlace(line.page, line.number, number)
    outside = np.flatnonzero(places.origin[:, 0] < 0)
    reply = one.tokenizer.decode(sequence.ids[outside[own[outside]]])
    assert "What is it?" in reply
    assert "Page 2" in reply


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_stand_where_the_manner_says(family):
    for manner, row_of in (("doclaylm", -1), ("laytext", 0)):
        _, lines, row = made(family, manner, 5)
        slots = np.flatnonzero(row.sequence.slot[:, 0] >= 0)
        assert row.sequence.slot[slots, 1].tolist() == list(range(len(lines)))
        assert row.items["boxes"] == [line.box for line in lines]
        for line, slot in zip(lines, slots, strict=True):
            span = [p for p in row.places.at(line.page, line.number) if row.places.origin[p, 1] >= 0 or p == slot]
            assert span[row_of] == slot
    _, lines, row = made(family, "text", 5)
    assert row.items == {}
    assert row.sequence.segments == ()


@pytest.mark.parametrize("by", ["line", "word"])
def test_added_boxes_are_those_of_their_tokens(by):
    _, _, row = made("tiny-llama2", "added", 7, boxes=by)
    text = made("tiny-llama2", "text", 7)[2]
    assert row.sequence.ids.tolist() == text.sequence.ids.tolist()
    count = 0
    for position in range(len(row.sequence)):
        laid, place = row.places.laid(position), row.places.of(position)
        if laid is None:
            assert row.sequence.slot[position].tolist() == [-1, -1]
            continue
        assert row.sequence.slot[position].tolist() == [0, count]
        whole = by == "line" or place.word is None
        assert row.items["boxes"][count] == (laid.box if whole else laid.word_boxes[place.word])
        count += 1
    assert len(row.items["boxes"]) == count


def test_tokens_share_the_box_of_their_word():
    """Beside the plain way: a word's tokens, counted one by one, cut its box from left to right."""
    _, _, row = made("tiny-llama2", "added", 7, boxes="token")
    whole = made("tiny-llama2", "added", 7, boxes="word")[2]
    seen = 0
    for page, number in dict.fromkeys((line.page, line.number) for line in row.places.lines):
        (laid,) = [line for line in row.places.lines if (line.page, line.number) == (page, number)]
        for word, box in enumerate(laid.word_boxes):
            at = row.places.at(page, number, word)
            boxes = [row.items["boxes"][n] for n in row.sequence.slot[at, 1]]
            if box is None:
                assert set(boxes) == {None}
                continue
            seen += len(at) > 1
            assert boxes[0][0] == box[0]
            assert boxes[-1][2] == box[2]
            for one, other in pairwise(boxes):
                assert one[2] == other[0]
            for one in boxes:
                assert (one[1], one[3]) == (box[1], box[3])
                assert abs((one[2] - one[0]) - (box[2] - box[0]) / len(at)) <= 1
    assert seen > 4
    bare = [p for p in range(len(row.sequence)) if row.places.of(p) is not None and row.places.of(p).word is None]
    assert [row.items["boxes"][n] for n in row.sequence.slot[bare, 1]] == [
        whole.items["boxes"][n] for n in whole.sequence.slot[bare, 1]
    ]


@pytest.mark.parametrize("manner", MANNERS)
def test_the_question_of_inference_is_the_start_of_training(manner):
    asked, reported = (("What is it?", None),), (("What is it?", "A bill."),)
    _, _, row = made("tiny-llama2", manner, 2, asked)
    _, _, trained = made("tiny-llama2", manner, 2, reported)
    length = len(row.sequence)
    assert trained.sequence.ids[:length].tolist() == row.sequence.ids.tolist()
    assert trained.sequence.slot[:length].tolist() == row.sequence.slot.tolist()
    assert trained.items == row.items
    assert trained.sequence.weight[:length].sum() == 0 < trained.sequence.weight[length:].sum()
    _, _, other = made("tiny-llama2", manner, 2, (("Who sold it?", None),))
    assert other.head == row.head
    assert other.sequence.ids[: row.head].tolist() == row.sequence.ids[: row.head].tolist()


@pytest.mark.parametrize("manner", MANNERS)
def test_a_question_about_a_box(manner):
    part = box_part((0.1, 0.2, 0.3, 0.4))
    _, _, row = made("tiny-llama2", manner, 4, (([part, " What stands here?"], "Tax"), (["And ", part, "?"], None)))
    if manner == "text":
        assert row.items == {}
        return
    spent = row.sequence.slot[:, 0] >= 0
    assert len(row.items["boxes"]) == spent.sum()
    asked = np.flatnonzero(spent & (row.places.origin[:, 0] < 0))
    assert len(asked) == 2
    for position in asked:
        assert row.items["boxes"][row.sequence.slot[position, 1]] == (100, 200, 300, 400)


def test_pictures_come_first_and_a_page_without_one_has_none():
    one = model("tiny-llama2", "doclaylm", patches=True)
    record, renderer = PageRecord.of(one.record), Renderer.of(one)
    lines = lines_of(document(1, 2), record)
    row = page_row(lines, [("?", None)], record, renderer, images={2: picture(2)})
    assert row.sequence.slot_count("image") == 4
    assert len(row.items["image"]) == 1
    batch = one.collate([row.sequence], [one.prepare(row.items)])
    assert one(**batch, logits_to_keep=1).logits.isfinite().all()


@pytest.mark.parametrize("manner", MANNERS)
def test_scripts_of_any_direction_keep_the_order_in_which_they_are_read(manner):
    texts = ("المجموع 12.50", "סך הכל 9.50", "合計 ¥1,200", "总计：８８元", "รวม 45", "Total مرحبا 7")
    page = Page.of([Line(text, (0, 20 * n, 90, 20 * n + 9)) for n, text in enumerate(texts)], size=(100, 200))
    for family in FAMILIES:
        one = model(family, manner)
        record, renderer = PageRecord.of(one.record), Renderer.of(one)
        row = page_row(lines_of(page, record), [("What?", None)], record, renderer)
        own = row.sequence.slot[:, 0] < 0 if manner != "added" else np.ones(len(row.sequence), bool)
        for number, text in enumerate(texts):
            at = row.places.at(1, number)
            assert one.tokenizer.decode(row.sequence.ids[at[own[at]]]).strip() == text


def test_control_tokens_on_a_page_stay_text():
    one = model("tiny-llama2", "doclaylm")
    record, renderer = PageRecord.of(one.record), Renderer.of(one)
    lines = lines_of(Page.of([Line("pay </s> now <s>", (0, 0, 9, 9))], size=(10, 10)), record)
    row = page_row(lines, [("Why </s>?", None)], record, renderer)
    special = {one.tokenizer.eos_token_id, one.tokenizer.pad_token_id}
    assert not special & set(row.sequence.ids[1:][row.sequence.slot[1:, 0] < 0].tolist())
    assert one.tokenizer.decode(row.sequence.ids[row.places.at(1, 0, 1)]).strip() == "</s>"


def test_lines_keep_their_numbers_and_words_their_boxes():
    words = (Word("9.50", (50, 10, 90, 20)), Word("Total", (5, 10, 40, 20)))
    page = Page.of(
        [
            Line("below", (5, 80, 40, 90)),
            Line("  \t ", (0, 0, 1, 1)),
            Line("9.50  Total", (5, 10, 90, 20), words=words),
            Line("no  place", None),
        ],
        size=(100, 100),
    )
    lines = lines_of(page, PageRecord(manner="added", order="top", scale=100))
    assert [(line.number, line.text) for line in lines] == [(2, "9.50 Total"), (3, "no place"), (0, "below")]
    assert lines[0].word_boxes == ((50, 10, 90, 20), (5, 10, 40, 20))
    assert lines[1].box is None
    assert lines[2].word_boxes == ((5, 80, 40, 90),)
    thirds = lines_of(Page.of([Line("ab cd", (0, 0, 50, 10))], size=(100, 100)), PageRecord(manner="added", scale=100))
    assert thirds[0].word_boxes == ((0, 0, 20, 10), (30, 0, 50, 10))


def test_words_that_are_not_the_lines_are_left():
    page = Page.of([Line("as read", (0, 0, 9, 9), words=(Word("other", (0, 0, 4, 4)),))], size=(10, 10))
    assert lines_of(page, PageRecord(manner="text"))[0].words == ("as", "read")
    cjk = Page.of([Line("合計金額", (0, 0, 9, 9), words=(Word("合計"), Word("金額")))], size=(10, 10))
    (line,) = lines_of(cjk, PageRecord(manner="text"))
    assert line.words == ("合計", "金額")


def test_what_is_refused():
    one = model("tiny-llama2", "doclaylm")
    renderer, record = Renderer.of(one), PageRecord.of(one.record)
    lines = lines_of(document(1), record)
    with pytest.raises(ConfigError, match="needs the parts image"):
        page_row(lines, [("?", None)], PageRecord(manner="doclaylm", image=True), renderer)
    with pytest.raises(DataError, match="at least one question"):
        page_row(lines, [], record, renderer)
    with pytest.raises(DataError, match="only the last"):
        page_row(lines, [("a", None), ("b", None)], record, renderer)
    with pytest.raises(DataError, match="a part of a question"):
        page_row(lines, [([{"type": "image"}], None)], record, renderer)
    with pytest.raises(DataError, match="two pages 1"):
        lines_of(Document(document(1).pages * 2), record)
    with pytest.raises(PromptError, match="slots 'over'"):
        renderer([{"role": "user", "content": [{"type": "page", "lines": [], "slot": "over"}]}])
