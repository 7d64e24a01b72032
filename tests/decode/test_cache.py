"""Growing caches beside the library's own, layer by layer; forks, trims and foreign caches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, QuantizedCache

from tests.decode.plain import backbone, plain_greedy, plain_logits, prompts
from vertebra.decode.call import generate
from vertebra.decode.state import cache as caches
from vertebra.decode.state.cache_layers import RoomLayer, WindowLayer
from vertebra.decode.state.prefill import prefill
from vertebra.errors import GenerationError
from vertebra.sequence.batch import collate
from vertebra.sequence.tokens import TokenSequence


def states(columns: int, generator: torch.Generator, rows: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (rows, 3, columns, 4)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(2, 6), st.booleans(), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_layers_hand_out_what_the_librarys_do(lengths, window, trimmable, seed):
    generator = torch.Generator().manual_seed(seed)
    pairs = [
        (RoomLayer(room=4), DynamicLayer()),
        (WindowLayer(window, record_past=trimmable, room=4), DynamicSlidingWindowLayer(window)),
    ]
    for columns in lengths:
        keys, values = states(columns, generator)
        for ours, theirs in pairs:
            assert ours.get_mask_sizes(columns) == theirs.get_mask_sizes(columns)
            for one, other in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
                assert torch.equal(one, other)
            assert ours.get_seq_length() == theirs.get_seq_length()


@given(
    st.lists(st.sampled_from(["fork", "grow", "trim", "rows"]), min_size=1, max_size=14),
    st.booleans(),
    st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_forks_never_change_each_other(acts, windowed, seed):
    """A family of layers that share buffers, beside plain tensors that are concatenated and cut."""
    generator = torch.Generator().manual_seed(seed)

    def pick(count: int) -> int:
        return int(torch.randint(0, count, (), generator=generator))

    first = WindowLayer(3, record_past=True, room=5) if windowed else RoomLayer(room=5)
    keys, values = states(4, generator)
    first.update(keys, values)
    family = [[first, keys]]
    for act in acts:
        layer, plain = family[pick(len(family))]
        if act == "grow":
            keys, values = states(1 + pick(3), generator, rows=len(plain))
            layer.update(keys, values)
            member = next(one for one in family if one[0] is layer)
            member[1] = torch.cat([plain, keys], 2)
        elif act == "trim":
            length = 1 + pick(plain.shape[2])
            layer.check_keep(length)
            layer.keep(length)
            next(one for one in family if one[0] is layer)[1] = plain[:, :, :length]
        elif len(family) < 6:
            rows = None if act == "fork" else torch.tensor([pick(len(plain)) for _ in range(1 + pick(3))])
            family.append([layer.fork(rows), plain if rows is None else plain[rows]])
        for one, expected in family:
            assert torch.equal(one.keys, expected)
            assert one.get_seq_length() == expected.shape[2]


def test_a_step_writes_one_column():
    """Room is there: the buffer stays where it is until it is full, and then grows by half."""
    layer = RoomLayer(room=32)
    generator = torch.Generator().manual_seed(0)
    layer.update(*states(10, generator))
    places = set()
    for _ in range(80):
        layer.update(*states(1, generator))
        places.add(layer.keys.data_ptr())
    assert len(places) <= 4
    layer.reset()
    assert layer.get_seq_length() == 0


def test_a_window_that_may_drop_keeps_little():
    layer = WindowLayer(6, room=8)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        layer.update(*states(1, generator))
        assert layer.columns <= 3 * 6
    assert layer.dropped > 0
    with pytest.raises(GenerationError, match="dropped its first"):
        layer.crop(-100)
    with pytest.raises(GenerationError, match="padding inside"):
        layer.hand_out(whole=True)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-mistral", "tiny-gemma3"])
def test_the_library_takes_our_cache(name):
    """Its own `generate` runs on it, beams and all: it is an ordinary cache."""
    model, (prompt, *_) = backbone(name), prompts(name)
    state = prefill(model, prompt, upto=len(prompt) - 1)
    ids = torch.tensor(prompt.ids)[None]
    with torch.inference_mode():
        out = model.llm.generate(
            ids, attention_mask=torch.ones_like(ids), past_key_values=state.cache, max_new_tokens=5, eos_token_id=2**31
        )
        cache = caches.fork(prefill(model, prompt, upto=len(prompt) - 1).cache, torch.zeros(3, dtype=torch.long))
        beams = model.llm.generate(
            ids, attention_mask=torch.ones_like(ids), past_key_values=cache, num_beams=3, max_new_tokens=5
        )
        expected = model.llm.generate(ids, attention_mask=torch.ones_like(ids), num_beams=3, max_new_tokens=5)
    assert out[0, len(prompt) :].tolist() == plain_greedy(name, prompt, 5)
    assert torch.equal(beams, expected)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-mistral", "tiny-gemma3"])
def test_a_static_cache_forks_and_trims(name):
    model, (prompt, question, _) = backbone(name), prompts(name, (6, 3, 1))
    state = prefill(model, prompt, cache="static", max_length=7)
    twin = state.fork([0, 0])
    token = torch.tensor([plain_greedy(name, prompt, 1)[0]])
    state.step(token)
    ids = [*prompt.ids.tolist(), int(token)]
    torch.testing.assert_close(state.logits[0], plain_logits(name, ids), atol=1e-4, rtol=1e-4)
    with pytest.raises(GenerationError, match="static cache of 7"):
        state.step(token)
    assert twin.length == 6
    twin.trim(4)
    twin.extend([question, question])
    joined = [*prompt.ids[:4].tolist(), *question.ids.tolist()]
    for row in twin.logits:
        torch.testing.assert_close(row, plain_logits(name, joined), atol=1e-4, rtol=1e-4)


def test_a_static_window_that_moved_on_cannot_be_trimmed():
    model, (prompt, *_) = backbone("tiny-mistral"), prompts("tiny-mistral", (14,))
    state = prefill(model, prompt, cache="static", max_length=30)
    with pytest.raises(GenerationError, match="static window of 8"):
        state.trim(9)
    assert state.length == 14


def test_a_foreign_static_cache_goes_on():
    model, (prompt, *_) = backbone("tiny-llama2"), prompts("tiny-llama2")
    cache = StaticCache(config=model.llm.config, max_cache_len=40)
    with torch.no_grad():
        model.llm(input_ids=torch.tensor(prompt.ids[None, :9]), past_key_values=cache, use_cache=True)
    result = generate(model, prompt, cache=cache, max_new_tokens=6, eos_token_id=())
    assert result.tokens == [plain_greedy("tiny-llama2", prompt, 6)]


def test_a_cache_of_the_whole_prompt():
    """Nothing is left that could predict: the last column is computed again, and the cache is not changed."""
    model, (prompt, *_) = backbone("tiny-llama2"), prompts("tiny-llama2")
    cache = DynamicCache(config=model.llm.config)
    with torch.no_grad():
        model.llm(input_ids=torch.tensor(prompt.ids[None]), past_key_values=cache, use_cache=True)
    result = generate(model, prompt, cache=cache, max_new_tokens=6, eos_token_id=())
    assert result.tokens == [plain_greedy("tiny-llama2", prompt, 6)]
    assert result.shape_of_passes[0] == 1
    assert cache.get_seq_length() == len(prompt)


def test_caches_that_do_not_belong():
    model, (prompt, *_) = backbone("tiny-llama2"), prompts("tiny-llama2")

    def filled(name, rows=1, length=5, dtype=torch.float32):
        cache = DynamicCache(config=backbone(name).llm.config)
        heads = {"tiny-qwen2": 2}.get(name, 4)
        for layer in range(backbone(name).llm.config.num_hidden_layers):
            cache.update(
                torch.zeros(rows, heads, length, 16, dtype=dtype),
                torch.zeros(rows, heads, length, 16, dtype=dtype),
                layer,
            )
        return cache

    wrong = {
        "4 layers, the model 2": filled("tiny-smollm3"),
        "2 heads of width 16, the model 4 of 16": filled("tiny-qwen2"),
        "it has 3 rows, the batch 1": filled("tiny-llama2", rows=3),
        "bfloat16": filled("tiny-llama2", dtype=torch.bfloat16),
        "holds 50 columns, the batch has 12": filled("tiny-llama2", length=50),
    }
    for why, cache in wrong.items():
        with pytest.raises(GenerationError, match=why):
            generate(model, prompt, cache=cache, max_new_tokens=2)
    with pytest.raises(GenerationError, match="the cache is empty"):
        generate(model, prompt, cache=DynamicCache(config=model.llm.config), max_new_tokens=2)
    with pytest.raises(GenerationError, match="expected `dynamic`, `static` or a transformers cache"):
        generate(model, prompt, cache=((1, 2),), max_new_tokens=2)


def test_states_say_what_they_cannot():
    model, (prompt, *_) = backbone("tiny-llama2"), prompts("tiny-llama2")
    state = prefill(model, prompt, upto=5)
    with pytest.raises(GenerationError, match="call advance"):
        state.step(torch.tensor([3]))
    with pytest.raises(GenerationError, match="cannot advance to column 3"):
        state.advance(3)
    with pytest.raises(GenerationError, match="cannot trim to 0"):
        state.trim(0)
    with pytest.raises(GenerationError, match="upto is 13"):
        prefill(model, prompt, upto=13)
    with pytest.raises(GenerationError, match="give max_length, 12 columns or more"):
        prefill(model, prompt, cache="static")
    with pytest.raises(GenerationError, match="id 5000 is in the prompt"):
        prefill(model, TokenSequence.of([1, 5000]))
    with pytest.raises(GenerationError, match="a dict cannot be decoded"):
        prefill({}, prompt)
    state.advance()
    torch.testing.assert_close(state.logits[0], plain_logits("tiny-llama2", prompt.ids.tolist()), atol=1e-4, rtol=1e-4)
    assert state.num_bytes > 0


def test_a_cache_of_another_kind_is_refused_by_name():
    cache = DynamicCache(config=backbone("tiny-llama2").llm.config)
    cache.layers[1] = type("FancyLayer", (DynamicLayer,), {})()
    with pytest.raises(GenerationError, match="layer 1 of the cache is a FancyLayer"):
        caches.adopt(cache, trimmable=True)
    assert QuantizedCache is not None


def test_right_and_left_padding_are_one():
    model = backbone("tiny-gpt2")
    rows = prompts("tiny-gpt2")
    states_of = [prefill(model, collate(rows, pad_id=model.pad_token_id, side=side)) for side in ("left", "right")]
    torch.testing.assert_close(states_of[0].logits, states_of[1].logits)


@pytest.mark.parametrize(
    ("name", "length", "room"), [("tiny-mistral", 60, 512), ("tiny-mistral", 6, 6), ("tiny-gemma3", 40, 40)]
)
def test_a_foreign_static_cache_of_windows_goes_on(name, length, room):
    """Windows alone roll, and take as many columns as the model has positions; a shorter one than the window does not."""
    model, (prompt, *_) = backbone(name), prompts(name, (5,))
    cache = StaticCache(config=model.llm.config, max_cache_len=length)
    with torch.no_grad():
        model.llm(input_ids=torch.tensor(prompt.ids[None, :3]), past_key_values=cache, use_cache=True)
    state = prefill(model, prompt, cache=cache)
    assert state.static_length == room
    generated = []
    for _ in range(min(20, room - len(prompt))):
        generated.append(int(state.logits[0].argmax()))
        state.step(torch.tensor(generated[-1:]))
    assert generated == plain_greedy(name, prompt, len(generated))
    if room == 6:
        with pytest.raises(GenerationError, match="static cache of 6 columns cannot hold 7"):
            state.step(torch.tensor([7]))
