"""Images, boxes in slots, boxes added to words: what is decoded with the cache on is what a plain loop says.

The plain loop puts every embedding in its place by hand, one row at a time, and knows no cache. Every family.
"""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from tests.model.models import (
    PATCHES,
    Calls,
    batch_of,
    build,
    page_row,
    pixels,
    shared,
    slots,
    tagged,
    text,
    text_row,
)
from vertebra.backbone.tiny import TINY
from vertebra.decode.call import generate
from vertebra.decode.state.decoding import AHEAD
from vertebra.decode.state.prefill import prefill
from vertebra.errors import GenerationError, InjectionError
from vertebra.sequence.tokens import TokenSequence

NEW = 6


@pytest.fixture(scope="module", params=TINY)
def model(request):
    return build(request.param, inference_mode=True, weights=True).eval()


@torch.no_grad()
def plain_embeds(model, row) -> torch.Tensor:
    """[1, L, D] by hand."""
    sequence, features = row
    embeds = model.backbone.llm.get_input_embeddings()(torch.tensor(sequence.ids)[None]).clone()
    for number, name in enumerate(sequence.segments):
        values = torch.as_tensor(features[name])
        made = model.parts[name](values).flatten(0, 1)
        for position, (segment, index) in enumerate(sequence.slot):
            if segment == number:
                old = embeds[0, position] if model.parts[name].added else 0
                embeds[0, position] = made[index] + old
    return embeds


@torch.no_grad()
def plain_loop(model, row, count: int = NEW, *, seed: int | None = None) -> tuple[list[int], torch.Tensor]:
    """(next ids, the logits of the first); drawn at a temperature of 0.8 where there is a seed."""
    llm = model.backbone.llm
    numbers = None if seed is None else torch.rand(count, generator=torch.Generator().manual_seed(seed)).double()
    embeds = plain_embeds(model, row)
    reported, first = [], None
    for step in range(count):
        logits = llm(inputs_embeds=embeds, use_cache=False).logits[0, -1]
        first = logits if first is None else first
        if numbers is None:
            reported.append(int(logits.argmax()))
        else:
            running = (logits / 0.8).double().softmax(-1).cumsum(-1)
            reported.append(int((running > numbers[step]).nonzero()[0, 0]))
        embeds = torch.cat([embeds, llm.get_input_embeddings()(torch.tensor([[reported[-1]]]))], 1)
    return reported, first


def rows_of() -> list:
    return [
        page_row(0, images=2, lines=3),
        text_row(7),
        page_row(5, images=1, lines=1),
        (TokenSequence.join([tagged(5), text(2, 9)]), {"where": [[10, 20, 300, 400]] * 5}),
    ]


def test_greedy_ragged_and_counted(model):
    rows = rows_of()
    batch = batch_of(model, rows)  # padded to the right, as a training batch is
    with Calls(model.parts["image"].encoder) as images, Calls(model.parts["boxes"].encoder) as boxes:
        result = generate(model, batch, max_new_tokens=NEW, eos_token_id=())
    assert result.tokens == [plain_loop(model, row)[0] for row in rows]
    assert result.shape_of_passes == [max(len(row[0]) for row in rows)] + [1] * (NEW - 1)
    assert (images.items, boxes.items) == ([3], [4])  # once, all images together


@pytest.mark.parametrize(
    "row", [page_row(3, images=2, lines=0), page_row(4, images=0, lines=3), page_row(5, images=1, lines=2)]
)
def test_images_boxes_and_both_drawn_and_greedy(model, row):
    """Left-padded beside a row of text; drawn as the definition says, each row from its own seed."""
    rows = [row, text_row(7)]
    batch = batch_of(model, rows, side="left")
    options = {"max_new_tokens": NEW, "eos_token_id": ()}
    assert generate(model, batch, **options).tokens == [plain_loop(model, one)[0] for one in rows]
    drawn = generate(model, batch, temperature=0.8, seed=[11, 12], **options)
    assert drawn.tokens == [plain_loop(model, one, seed=seed)[0] for seed, one in zip((11, 12), rows, strict=True)]
    uncached = generate(model, batch, temperature=0.8, seed=[11, 12], use_cache=False, **options)
    assert uncached.tokens == drawn.tokens


@pytest.mark.parametrize("options", [{"chunk": 3}, {"cache": "static"}, {"use_cache": False}])
def test_other_ways_of_computing(model, options):
    rows = rows_of()
    result = generate(model, batch_of(model, rows), max_new_tokens=NEW, eos_token_id=(), **options)
    assert result.tokens == [plain_loop(model, row)[0] for row in rows]


def test_a_long_answer_to_a_page(model):
    """Beyond what is made ahead, and on with a second page; one pass over all of it by hand says the same."""
    rows = [page_row(0, images=2, lines=3), text_row(7)]
    count = AHEAD + 20 if model.backbone.identifier == "tiny-llama2" else 20
    result = generate(
        model, batch_of(model, rows), max_new_tokens=count, eos_token_id=(), temperature=1.0, seed=4, keep_state=True,
        output_logits=True,
    )  # fmt: skip
    llm, (more, features) = model.backbone.llm, page_row(5, images=1, lines=1)
    after = result.state.extend([more, more], [features, features])
    for place, row in enumerate(rows):
        answer = llm.get_input_embeddings()(torch.tensor([result.tokens[place]]))
        embeds = torch.cat([plain_embeds(model, row), answer, plain_embeds(model, (more, features))], 1)
        with torch.no_grad():
            plain = llm(inputs_embeds=embeds, use_cache=False).logits[0]
        begin = len(row[0]) - 1
        made = torch.stack([logits[place] for logits in result.logits])
        torch.testing.assert_close(made, plain[begin : begin + count], atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(after[place], plain[-1], atol=2e-4, rtol=1e-4)


def test_cut_in_the_middle_of_an_image_and_of_a_page(model):
    row = page_row(0, images=2, lines=3)
    batch = batch_of(model, [row])
    state = prefill(model, batch, upto=1 + PATCHES + 1)  # one patch of the second image is computed
    state.advance(1 + 2 * PATCHES + 4)  # at the first box
    state.advance()
    reply, first = plain_loop(model, row)
    torch.testing.assert_close(state.logits[0], first, atol=1e-4, rtol=1e-4)
    assert generate(model, state, max_new_tokens=NEW, eos_token_id=()).tokens == [reply]
    state.trim(1 + PATCHES - 1)  # back into the first image, and on again from a fresh batch
    cache = state.cache
    again = generate(model, batch, cache=cache, max_new_tokens=NEW, eos_token_id=())
    assert again.tokens == [reply]
    assert again.shape_of_passes[0] == len(row[0]) - PATCHES


def test_a_page_and_many_questions(model):
    """The page is encoded and computed once; questions bring slots of their own."""
    page = page_row(0, images=1, lines=2)
    questions = [
        (text(4, 50), {}),
        (TokenSequence.join([text(1, 51), slots("boxes", 1), text(1, 52)]), {"boxes": [[1, 2, 3, 4]]}),
    ]
    with Calls(model.parts["image"].encoder) as images:
        state = prefill(model, batch_of(model, [page]))
        asked = state.fork([0, 0])
        asked.extend([sequence for sequence, _ in questions], [features for _, features in questions])
        result = generate(model, asked, max_new_tokens=NEW, eos_token_id=())
    assert images.items == [1]
    whole = []
    for sequence, features in questions:
        boxes = [*page[1]["boxes"].tolist(), *features.get("boxes", [])]
        whole.append((TokenSequence.join([page[0], sequence]), {**page[1], "boxes": boxes}))
    assert result.tokens == [plain_loop(model, row)[0] for row in whole]


def test_a_foreign_cache_that_ends_in_a_page(model):
    row = page_row(2, images=1, lines=3)
    cache, cut = DynamicCache(config=model.backbone.llm.config), 1 + PATCHES + 4
    with torch.no_grad():
        model.backbone.llm(inputs_embeds=plain_embeds(model, row)[:, :cut], past_key_values=cache, use_cache=True)
    result = generate(model, batch_of(model, [row]), cache=cache, max_new_tokens=NEW, eos_token_id=())
    assert result.tokens == [plain_loop(model, row)[0]]


def test_two_inputs_interleaved(model):
    """A pure function of row and position: nothing of one input is left for the other."""
    rows = [page_row(0, images=1, lines=1), page_row(1, images=1, lines=1)]
    states = [prefill(model, batch_of(model, [row])) for row in rows]
    generated: list[list[int]] = [[], []]
    for _ in range(NEW):
        for state, tokens in zip(states, generated, strict=True):
            token = state.logits.argmax(-1)
            tokens.append(int(token))
            state.step(token)
    assert generated == [plain_loop(model, row)[0] for row in rows]


def test_both_engines(model):
    rows = [page_row(0, images=1, lines=2), text_row(7)]
    batch = batch_of(model, rows)
    ours = generate(model, batch, max_new_tokens=NEW, repetition_penalty=1.3)
    theirs = generate(model, batch, engine="hf", max_new_tokens=NEW, repetition_penalty=1.3)
    assert ours.tokens == theirs.tokens
    assert ours.stop_reason == theirs.stop_reason


def test_crop_and_ask_again(model):
    """A question after a page and its answer are taken back, and another one is asked: with a box of its own."""
    page, first = page_row(1, images=1, lines=2), text(3, 60)
    second = TokenSequence.join([text(2, 61), slots("boxes", 1), text(1, 62)])
    with Calls(model.parts["image"].encoder) as images:
        state = prefill(model, batch_of(model, [page]))
        state.extend(first)
        for _ in range(3):
            state.step(state.logits.argmax(-1))
        state.trim(len(page[0]))
        state.extend(second, {"boxes": [[5, 6, 7, 8]]})
        result = generate(model, state, max_new_tokens=NEW, eos_token_id=())
    assert images.items == [1]
    boxes = [*page[1]["boxes"].tolist(), [5, 6, 7, 8]]
    whole = (TokenSequence.join([page[0], second]), {**page[1], "boxes": boxes})
    assert result.tokens == [plain_loop(model, whole)[0]]


def test_other_images_are_seen(model):
    """The image reaches the answer: other pixels, other logits at every step, not at the first alone."""
    sequence, features = page_row(0, images=1, lines=1)
    batches = [batch_of(model, [(sequence, {**features, "image": pixels(1, seed)})]) for seed in (1, 2)]
    forced = {"max_new_tokens": 3, "sequence_bias": {(33,): 1e4}, "output_logits": True, "eos_token_id": ()}
    one, other = (generate(model, batch, **forced) for batch in batches)
    assert one.tokens == other.tokens == [[33, 33, 33]]
    assert all(not torch.allclose(a, b, atol=1e-4) for a, b in zip(one.logits, other.logits, strict=True))


def test_a_penalty_counts_words_and_not_slots():
    """Slots hold the reserved id 5, and words with boxes added to them are still words."""
    model = shared()
    words = tagged(3)
    row = (TokenSequence.join([slots("image", PATCHES), words]), {"image": pixels(1), "where": [[0, 0, 9, 9]] * 3})
    penalized = generate(
        model, batch_of(model, [row]), max_new_tokens=1, repetition_penalty=2.0, output_scores=True, output_logits=True
    )
    changed = (penalized.scores[0] != penalized.logits[0]).nonzero()[:, 1].tolist()
    assert changed == sorted(set(words.ids.tolist()))


def test_a_backbone_alone_refuses_slots():
    model = shared()
    with pytest.raises(InjectionError, match="`image`"):
        generate(model.backbone, batch_of(model, [page_row(0)]), max_new_tokens=2)


def test_a_part_in_training_mode_is_refused_between_calls_and_not_in_one():
    model = build("tiny-llama2", inference_mode=True, weights=True)
    encoder = model.parts["image"].encoder
    encoder.drop = torch.nn.Dropout(0.5)
    encoder.train()
    row = page_row(0, images=1, lines=0)
    with pytest.raises(GenerationError, match=r"drop.*eval\(\)"):
        prefill(model, batch_of(model, [row]))
    generate(model, batch_of(model, [row]), max_new_tokens=2)
    assert encoder.drop.training  # as it was
