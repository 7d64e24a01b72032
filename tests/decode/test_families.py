"""The equality matrix: whatever is cached, cut, forked or trimmed, every family says what a plain uncached loop says."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from tests.decode.plain import (
    FAMILIES,
    WINDOWED,
    backbone,
    plain_drawn,
    plain_greedy,
    plain_logits,
    plain_rows,
    prompts,
)
from vertebra.decode.call import generate
from vertebra.decode.state.prefill import prefill
from vertebra.errors import GenerationError
from vertebra.sequence.batch import collate
from vertebra.sequence.tokens import TokenSequence

NEW = 8
every_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def truth():
    """The plain answers, once a family."""
    known: dict[str, list[list[int]]] = {}

    def of(name: str) -> list[list[int]]:
        if name not in known:
            known[name] = plain_rows(name, prompts(name), NEW)
        return known[name]

    return of


@every_family
def test_greedy(name, truth):
    """Ragged rows, padded to the left, and each alone; tokens differ between the rows, so that mixing rows shows."""
    result = generate(backbone(name), prompts(name), max_new_tokens=NEW, eos_token_id=())
    assert result.tokens == truth(name)
    assert result.shape_of_passes == [17] + [1] * (NEW - 1)
    assert result.stop_reason == ["length"] * 3
    alone = [generate(backbone(name), one, max_new_tokens=NEW, eos_token_id=()).tokens[0] for one in prompts(name)]
    assert alone == truth(name)
    assert len({tuple(row) for row in truth(name)}) == 3


@every_family
@pytest.mark.parametrize(
    "options", [{"chunk": 3}, {"cache": "static"}, {"cache": "static", "chunk": 5}, {"use_cache": False}]
)
def test_other_ways_of_computing(name, options, truth):
    result = generate(backbone(name), prompts(name), max_new_tokens=NEW, eos_token_id=(), **options)
    assert result.tokens == truth(name)


@every_family
def test_the_other_kernel(name, truth):
    model = backbone(name)
    if model.attn == "eager":
        return  # the family has no other kernel here
    with model.kernel("eager"):
        result = generate(model, prompts(name), max_new_tokens=NEW, eos_token_id=())
    assert result.tokens == truth(name)


@every_family
def test_sampling(name):
    """Seeded, row for row as if each were alone, and as the definition says."""
    options = {"temperature": 0.7, "top_k": 20, "max_new_tokens": 5, "eos_token_id": ()}
    result = generate(backbone(name), prompts(name), seed=[7, 8, 9], **options)
    plain = [
        plain_drawn(name, one, 5, seed=seed, temperature=0.7, top_k=20)
        for seed, one in zip((7, 8, 9), prompts(name), strict=True)
    ]
    assert result.tokens == plain
    assert result.seeds == (7, 8, 9)
    assert generate(backbone(name), prompts(name), seed=7, **options).tokens == plain


@every_family
def test_right_padded_input_is_the_same_input(name, truth):
    model = backbone(name)
    batch = collate(prompts(name), pad_id=model.pad_token_id, side="right")
    assert generate(model, batch, max_new_tokens=NEW, eos_token_id=()).tokens == truth(name)


@every_family
def test_a_foreign_cache_goes_on(name):
    """Made by the library in the ordinary way, of the first columns; it is not changed."""
    model, (prompt, *_) = backbone(name), prompts(name)
    cache = DynamicCache(config=model.llm.config)
    with torch.no_grad():
        model.llm(input_ids=torch.tensor(prompt.ids[None, :9]), past_key_values=cache, use_cache=True)
    keys = cache.layers[0].keys.clone()
    for _ in range(2):
        result = generate(model, prompt, cache=cache, max_new_tokens=NEW, eos_token_id=())
        assert result.tokens == [plain_greedy(name, prompt, NEW)]
        assert result.shape_of_passes[:2] == [len(prompt) - 9, 1]
    assert cache.get_seq_length() == 9
    assert torch.equal(keys, cache.layers[0].keys)


@every_family
def test_a_prefix_is_shared(name):
    """One page, three questions of different lengths, each answered as if page and question had come together."""
    model = backbone(name)
    page, *questions = prompts(name, (19, 3, 1, 6), seed=5)
    state = prefill(model, page)
    asked = state.fork([0, 0, 0])
    asked.extend(questions)
    result = generate(model, asked, max_new_tokens=NEW, eos_token_id=())
    whole = [TokenSequence.join([page, question]) for question in questions]
    assert result.tokens == plain_rows(name, whole, NEW)
    assert state.length == 19  # neither the fork nor the answer changed it
    assert generate(model, state, max_new_tokens=NEW, eos_token_id=()).tokens == [plain_greedy(name, page, NEW)]


@every_family
def test_crop_and_ask_again(name):
    """Steps are taken back, past the window, and another end is given."""
    model = backbone(name)
    page, first, second = prompts(name, (14, 4, 7), seed=6)
    state = prefill(model, page)
    state.extend(first)
    for token in plain_greedy(name, TokenSequence.join([page, first]), 3):
        state.step(torch.tensor([token]))
    state.trim(14)
    assert state.logits is None
    logits = state.extend(second)
    joined = TokenSequence.join([page, second])
    torch.testing.assert_close(logits[0], plain_logits(name, joined.ids.tolist()), atol=1e-4, rtol=1e-4)
    assert generate(model, state, max_new_tokens=NEW, eos_token_id=()).tokens == [plain_greedy(name, joined, NEW)]
    state.trim(10)
    logits = state.refresh()
    torch.testing.assert_close(logits[0], plain_logits(name, page.ids[:10].tolist()), atol=1e-4, rtol=1e-4)


@every_family
def test_two_take_turns(name):
    """Two states of one model, a step each in turn: nothing is kept on the model."""
    model = backbone(name)
    one, other, _ = prompts(name)
    states = [prefill(model, one), prefill(model, other)]
    generated: list[list[int]] = [[], []]
    for _ in range(5):
        for state, tokens in zip(states, generated, strict=True):
            token = state.logits.argmax(-1)
            tokens.append(int(token))
            state.step(token)
    assert generated == [plain_greedy(name, one, 5), plain_greedy(name, other, 5)]


@every_family
def test_a_conversation_goes_on_after_ragged_ends(name):
    """Rows end at different steps; what is fed to a row that has ended is padding to what comes later."""
    model, sequences = backbone(name), prompts(name)
    plain = plain_rows(name, sequences, NEW)
    ends = [plain[0][1], plain[1][4]]
    result = generate(model, sequences, max_new_tokens=NEW, eos_token_id=ends, keep_state=True)
    expected = [row[: min([row.index(end) for end in ends if end in row], default=NEW - 1) + 1] for row in plain]
    assert result.tokens == expected
    assert len({len(row) for row in expected}) > 1
    more = prompts(name, (2, 5, 3), seed=9)
    result.state.extend(more)
    whole = [
        TokenSequence.join([prompt, TokenSequence.of(generated), question])
        for prompt, generated, question in zip(sequences, expected, more, strict=True)
    ]
    again = generate(model, result.state, max_new_tokens=4, eos_token_id=())
    assert again.tokens == plain_rows(name, whole, 4)


@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_that_dropped_its_past_says_so(name):
    """Without `trimmable` a windowed layer keeps no more than it needs, and going back is refused, nothing changed."""
    model = backbone(name)
    page, question, _ = prompts(name, (100, 4, 1))
    state = prefill(model, page, trimmable=False, chunk=10)
    columns = {layer.columns for layer in state.cache.layers if layer.is_sliding}
    assert max(columns) < 100
    with pytest.raises(GenerationError, match="trimmable=True"):
        state.trim(50)
    assert state.length == 100
    logits = state.extend(question)
    joined = TokenSequence.join([page, question])
    torch.testing.assert_close(logits[0], plain_logits(name, joined.ids.tolist()), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", WINDOWED)
def test_padding_inside_rows_needs_the_whole_past(name):
    model = backbone(name)
    state = prefill(model, prompts(name, (60, 60)), trimmable=False, chunk=10)
    before = state.batch.length
    with pytest.raises(GenerationError, match="trimmable=True"):
        state.extend(prompts(name, (2, 9)))
    assert state.batch.length == before
