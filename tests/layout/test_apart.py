"""Many questions about one page as one row: each reads as if it were asked alone, in every manner and several families."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.layout.made import document, model, picture
from tests.layout.test_cache import FAMILIES
from vertebra.decode.call import generate
from vertebra.errors import DataError, GenerationError
from vertebra.layout import Apart, PageRecord, Renderer, box_part, lines_of, page_row, shuffled
from vertebra.layout.apart import KEPT
from vertebra.layout.manners import MANNERS
from vertebra.page import Line, Page

TURNS = [
    ("What is the total?", "9.50"),
    ([box_part((0.1, 0.1, 0.5, 0.3)), " What stands here?"], "Tax"),
    ("What is the total?", "none"),  # another answer
    (["?", box_part((0.2, 0.2, 0.6, 0.9))], "Invoice 4711"),
    ("?", "</s>"),
    (["?", box_part((0.0, 0.2, 0.6, 0.7)), box_part((0.3, 0.2, 0.6, 0.7))], "合計"),
]


def page_of(one, seed: int, pages: int = 1, lines: int = 4):
    record, renderer = PageRecord.of(one.record), Renderer.of(one)
    laid = shuffled(lines_of(document(seed, pages, lines), record), np.random.default_rng(seed))
    images = {number: picture(seed + number) for number in range(1, pages + 1)} if record.image else None
    return laid, record, renderer, images


def losses(one, rows) -> torch.Tensor:
    """The summed loss of what each row is trained on."""
    batch = one.collate([row.sequence for row in rows], [one.prepare(row.items) or None for row in rows])
    return one(**batch, num_items_in_batch=1.0).loss


@pytest.mark.parametrize(("number", "family"), list(enumerate(FAMILIES)))
@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("pages", [1, 2])
def test_one_row_is_all_the_rows(number, family, manner, pages):
    """The loss and the gradients of a page with six questions are the sums of those of six rows."""
    one = model(family, manner, patches=(number + pages) % 2 == 0, boxes="token" if manner == "added" else "line")
    lines, record, renderer, images = page_of(one, number, pages)
    apart = Apart(record, renderer)
    rows = [page_row(lines, [turn], record, renderer, images=images) for turn in TURNS]
    for _ in range(2):  # what is kept from before is the same
        row = apart(lines, TURNS, images=images)
        assert len(row.sequence) == rows[0].head + sum(len(one.sequence) - one.head for one in rows)
        assert row.head == rows[0].head
        assert all(np.array_equal(row.places.origin[: row.head], one.places.origin[: row.head]) for one in rows)
        parameters = list(one.parameters())
        with torch.enable_grad():
            alone_gradients = torch.autograd.grad(losses(one, rows), parameters, allow_unused=True)
            made = torch.autograd.grad(losses(one, [row]), parameters, allow_unused=True)
        for a, b in zip(made, alone_gradients, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert float((a - b).abs().max()) <= 2e-4 * max(1.0, float(b.abs().max()))
        assert torch.allclose(losses(one, [row]), losses(one, rows), rtol=1e-5)


def test_as_many_as_there_is_room_for():
    one = model("tiny-llama2", "added")
    lines, record, renderer, images = page_of(one, 0)
    apart, whole = Apart(record, renderer), Apart(record, renderer)(lines, TURNS, images=images)
    ends = [whole.head, *(whole.head + np.flatnonzero(np.diff(whole.sequence.block[whole.head :])) + 1).tolist()]
    ends.append(len(whole.sequence))
    assert len(ends) == 1 + len(TURNS)
    for count in range(1, len(TURNS) + 1):
        for most in (ends[count], ends[count] + 1, [*ends, ends[-1] + 9][count + 1] - 1):
            row = apart(lines, TURNS, images=images, most=most)
            assert row.sequence == whole.sequence.cut(0, ends[count])
            own = row.sequence.slot_count("boxes")
            assert row.items["boxes"] == whole.items["boxes"][:own], "the items of those that have no room go with them"
    assert apart(lines, TURNS, images=images, most=ends[1] - 1) is None


def test_what_is_kept_has_an_end():
    one = model("tiny-llama2", "text")
    lines, record, renderer, _ = page_of(one, 0, lines=1)
    apart = Apart(record, renderer)
    for number in range(KEPT + 3):
        apart(lines, [(f"{number}", "x")])
    assert len(apart._tails) == KEPT
    again, plain = apart(lines, [("0", "x")]), page_row(lines, [("0", "x")], record, renderer)
    assert np.array_equal(again.sequence.ids, plain.sequence.ids)


@pytest.mark.parametrize("family", ["tiny-llama3", "tiny-qwen2.5", "tiny-llama2"])
def test_lines_that_end_in_a_token_of_their_own(family):
    """`no.` and its newline are one token of LLaMA-3: what is kept from a page that ends otherwise holds all the same."""
    one = model(family, "added")
    record, renderer = PageRecord.of(one.record), Renderer.of(one)
    pages = [
        Page.of([Line("9.50", (0, 0, 9, 9)), Line(end, (0, 20, 9, 29))], size=(40, 40))
        for end in ("Total", "no.", "(a)", "9 ")
    ]
    apart = Apart(record, renderer)
    for page in (*pages, *reversed(pages)):
        lines = lines_of(page, record)
        row = apart(lines, TURNS)
        alone = [page_row(lines, [turn], record, renderer) for turn in TURNS]
        ids = np.concatenate([alone[0].sequence.ids[: row.head], *(one.sequence.ids[one.head :] for one in alone)])
        assert np.array_equal(row.sequence.ids, ids)


def test_a_page_without_lines_is_none_with_them():
    one = model("tiny-llama2", "doclaylm")
    lines, record, renderer, _ = page_of(one, 0)
    apart = Apart(record, renderer)
    for shown in ([], lines, []):
        row, plain = apart(shown, TURNS[:1]), page_row(shown, TURNS[:1], record, renderer)
        assert np.array_equal(row.sequence.ids, plain.sequence.ids)
        assert row.items == plain.items


def test_a_question_that_joins_the_page():
    """A question that begins with a newline, which this tokenizer takes together with that of the last line."""
    one = model("tiny-qwen2.5", "text")
    lines, record, renderer, _ = page_of(one, 0)
    joined = page_row(lines, [("\n\nWhat?", "x")], record, renderer)
    plain = page_row(lines, [("What?", "x")], record, renderer)
    assert joined.sequence.ids[joined.head - 1] != plain.sequence.ids[plain.head - 1], "else this shows nothing"
    with pytest.raises(
        DataError, match=r"joins the end of a page with a question \('\\n\\nWhat\?'\).*data.options.apart"
    ):
        Apart(record, renderer)(lines, [("What?", "x"), ("\n\nWhat?", "x")])


def test_a_row_of_branches_is_not_continued():
    one = model("tiny-llama2", "text")
    lines, record, renderer, _ = page_of(one, 0)
    row = Apart(record, renderer)(lines, TURNS[:2])
    with pytest.raises(GenerationError, match=r"a row has branches .* `Prefilled` computes what they share once"):
        generate(one, row.sequence, max_new_tokens=2)
