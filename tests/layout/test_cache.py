"""Pages with the cache on are pages without: every manner, several families, against a loop that computes all anew."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from tests.layout.made import document, model, picture
from vertebra.decode import Prefilled, prefill
from vertebra.decode.call import generate
from vertebra.errors import GenerationError
from vertebra.layout import PageRecord, Renderer, box_part, lines_of, page_row, shuffled
from vertebra.layout.manners import MANNERS
from vertebra.model import BoxTables, new_part

NEW = 5
FAMILIES = ("tiny-llama2", "tiny-gpt2", "tiny-qwen2.5", "tiny-gemma3")
"""Rotary, learned positions, biases, sliding windows."""
ALL = [(family, manner, (n + m) % 2 == 0) for n, family in enumerate(FAMILIES) for m, manner in enumerate(MANNERS)]
"""With patches and without, in turns: each manner and each family meets both."""
TURNS = [(FAMILIES[(2 * n + m) % 4], manner) for n in range(2) for m, manner in enumerate(MANNERS)]
"""Each manner in two families, each family with two manners."""
QUESTIONS = ("What is the total?", "Who sold it?", "When?")


def rows_of(one, seed: int, questions=QUESTIONS, *, lines: int = 4, pages: int = 1, boxed: bool = False):
    """Rows about one document: a question each."""
    record, renderer = PageRecord.of(one.record), Renderer.of(one)
    laid = shuffled(lines_of(document(seed, pages, lines), record), np.random.default_rng(seed))
    images = {number: picture(seed + number) for number in range(1, pages + 1)} if record.image else None
    asked = [[box_part((0.1, 0.1, 0.5, 0.3)), " " + text] if boxed else text for text in questions]
    made = [page_row(laid, [(text, None)], record, renderer, images=images) for text in asked]
    return made, [(row.sequence, one.prepare(row.items)) for row in made]


@torch.no_grad()
def plain_logits(one, row, ids: list[int]) -> torch.Tensor:
    """What follows a row and what was said after it: all of it through the whole model, embeddings put in by hand."""
    sequence, features = row
    embeds = one.backbone.embed_input_ids(torch.tensor([[*sequence.ids.tolist(), *ids]])).clone()
    for number, name in enumerate(sequence.segments):
        part = one.parts[name]
        values = part(torch.as_tensor(features[name])).flatten(0, 1)
        for position, (segment, index) in enumerate(sequence.slot.tolist()):
            if segment == number:
                embeds[0, position] = values[index] + (embeds[0, position] if part.added else 0)
    return one.backbone.llm(inputs_embeds=embeds, use_cache=False).logits[0, -1]


def plain(one, row) -> list[int]:
    """Greedy."""
    ids: list[int] = []
    for _ in range(NEW):
        ids.append(int(plain_logits(one, row, ids).argmax()))
    return ids


def plain_beams(one, row, beams: int) -> list[int]:
    """The best of so many lines of tokens, each of which is computed anew."""
    kept: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(NEW):
        longer = []
        for score, ids in kept:
            best = plain_logits(one, row, ids).log_softmax(-1).topk(beams)
            longer += [(score + float(v), [*ids, int(i)]) for v, i in zip(best.values, best.indices, strict=True)]
        kept = sorted(longer, reverse=True)[:beams]
    return kept[0][1]


def answers(made) -> list[list[int]]:
    return [tokens[:NEW] for tokens in made.tokens]


@pytest.mark.parametrize(("family", "manner", "patches"), ALL)
def test_cache_on_is_cache_off(family, manner, patches):
    """Ragged rows of two documents, batched, kept; each row as if it were alone and nothing were kept."""
    one = model(family, manner, patches=patches)
    rows = rows_of(one, 1)[1][:2] + rows_of(one, 2, QUESTIONS[2:], lines=7, boxed=manner != "text")[1]
    expected = [plain(one, row) for row in rows]
    batch = one.collate([row[0] for row in rows], [row[1] or None for row in rows], side="left")
    options = {"max_new_tokens": NEW, "eos_token_id": ()}
    assert answers(generate(one, batch, **options)) == expected
    assert answers(generate(one, batch, use_cache=False, **options)) == expected
    assert answers(generate(one, batch, chunk=5, **options)) == expected
    assert answers(generate(one, batch, cache="static", **options)) == expected


@pytest.mark.parametrize(("family", "manner", "patches"), ALL)
def test_a_page_is_computed_once_for_any_number_of_questions(family, manner, patches):
    one = model(family, manner, patches=patches)
    made, rows = rows_of(one, 3, QUESTIONS)
    page = Prefilled(one, *rows[0], upto=made[0].head)
    options = {"max_new_tokens": NEW, "eos_token_id": ()}
    expected = [plain(one, row) for row in rows]
    assert answers(generate(one, page.begin(rows), **options)) == expected
    alone = [answers(generate(one, page.begin([row]), **options))[0] for row in reversed(rows)]
    assert alone == expected[::-1]
    assert page.state.length == len(page) == made[0].head
    kinds = Counter(one.kind for one in page.state.passes)
    assert kinds == {"prefill": 1}


@pytest.mark.parametrize(("family", "manner"), TURNS)
def test_two_documents_take_turns(family, manner):
    one = model(family, manner)
    (first, rows), (second, others) = rows_of(one, 4), rows_of(one, 5, lines=6, pages=2)
    kept = Prefilled(one, *rows[0], upto=first[0].head), Prefilled(one, *others[0], upto=second[0].head)
    states = [kept[0].begin(rows[:1]), kept[1].begin(others[1:2]), kept[0].begin(rows[2:])]
    reply = [[], [], []]
    for _ in range(NEW):
        for state, tokens in zip(states, reply, strict=True):
            tokens.append(int(state.logits.argmax()))
            state.step(torch.tensor(tokens[-1:]))
    assert reply == [plain(one, row) for row in (rows[0], others[1], rows[2])]


@pytest.mark.parametrize(("family", "manner"), TURNS)
def test_beams(family, manner):
    one = model(family, manner)
    rows = rows_of(one, 6)[1]
    batch = one.collate([row[0] for row in rows], [row[1] or None for row in rows], side="left")
    found = generate(one, batch, max_new_tokens=NEW, num_beams=3, eos_token_id=())
    assert answers(found) == [plain_beams(one, row, 3) for row in rows]


def test_whatever_a_row_has_in_common_is_used_and_no_more():
    """A row that was shuffled otherwise goes on from the first line that differs; a prefix may end anywhere."""
    one = model("tiny-llama2", "doclaylm", patches=True)
    made, rows = rows_of(one, 7, lines=6)
    for upto in range(1, len(rows[0][0]) + 1):
        page = Prefilled(one, *rows[0], upto=upto)
        assert len(page) <= upto
        state = page.begin(rows[1:2])
        whole = prefill(one, one.collate([rows[1][0]], [rows[1][1]]))
        assert state.length == whole.length
        assert float((state.logits - whole.logits).abs().max()) < 1e-4
    record, renderer = PageRecord.of(one.record), Renderer.of(one)
    laid = list(made[0].places.lines)
    laid[3:] = laid[:2:-1]
    other = page_row(laid, [("When?", None)], record, renderer, images={1: picture(8)})
    state = Prefilled(one, *rows[0], upto=made[0].head).begin([(other.sequence, one.prepare(other.items))])
    whole = prefill(one, one.collate([other.sequence], [one.prepare(other.items)]))
    assert float((state.logits - whole.logits).abs().max()) < 1e-4


def test_another_page_is_refused():
    one = model("tiny-llama2", "laytext", patches=True)
    made, rows = rows_of(one, 8)
    page = Prefilled(one, *rows[0], upto=made[0].head)
    moved = {**rows[1][1], "boxes": rows[1][1]["boxes"].copy()}
    moved["boxes"][1] = [0, 0, 1, 1]
    with pytest.raises(GenerationError, match="row 1 begins like what is kept, and its `boxes` are others"):
        page.begin([rows[0], (rows[1][0], moved)])
    with pytest.raises(GenerationError, match="no rows"):
        page.begin([])
    with pytest.raises(GenerationError, match="nothing in common"):
        page.begin([(rows[0][0].cut(3), None)])
    with pytest.raises(GenerationError, match="upto is 0"):
        Prefilled(one, *rows[0], upto=0)
    assert answers(generate(one, page.begin(rows[:1]), max_new_tokens=NEW, eos_token_id=())) == [plain(one, rows[0])]


def test_the_folder_keeps_the_manner(tmp_path):
    from vertebra.model.model import Model

    one = model("tiny-gpt2", "doclaylm", patches=True)
    one.save(tmp_path / "pages")
    again = Model.load(tmp_path / "pages", inference_mode=True).eval()
    assert PageRecord.of(again.record) == PageRecord(manner="doclaylm", image=True)
    rows = rows_of(again, 9)[1]
    assert plain(again, rows[0]) == plain(one, rows_of(one, 9)[1][0])
    assert new_part(again.backbone, BoxTables(4), "linear").slots == 1
