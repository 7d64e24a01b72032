"""Every boundary of decoding is crossed at least twice: positions made ahead, masks, windows, caches, text, and looks."""

from __future__ import annotations

import pytest
import torch

from tests.contract.long import LONG, is_drawn, is_greedy, long_model, near, taught
from tests.decode.plain import backbone
from vertebra.decode.call import generate, stream
from vertebra.decode.state.decoding import AHEAD
from vertebra.decode.tracing.trace import trace
from vertebra.errors import TooLongError
from vertebra.sequence.tokens import TokenSequence

PROMPTS = [TokenSequence.of(range(10, 22)), TokenSequence.of(range(30, 35))]
LONGEST = 1200
MANY = 75
"""Steps that cross every boundary of the small buffers several times."""
EACH_CLASS = ("tiny-llama2", "tiny-mistral", "tiny-gemma3", "tiny-opt")
assert LONGEST > 4 * AHEAD


@pytest.fixture
def small(monkeypatch):
    """Positions are made eight steps ahead, so that short answers reach their end many times."""
    monkeypatch.setattr("vertebra.decode.state.decoding.AHEAD", 8)


@pytest.mark.parametrize("name", LONG)
def test_a_long_answer(name):
    """Ragged rows, drawn, so that tokens do not run in circles; logits of all steps are those of one plain pass."""
    model = long_model(name)
    result = generate(
        model, PROMPTS, max_new_tokens=LONGEST, eos_token_id=(), temperature=1.0, seed=3, output_logits=True
    )
    assert result.shape_of_passes == [12] + [1] * (LONGEST - 1)
    for row, prompt in enumerate(PROMPTS):
        generated = result.tokens[row]
        assert len(generated) == LONGEST
        assert len(set(generated)) > 50
        plain = taught(model, prompt.ids.tolist(), generated)
        near(torch.stack([logits[row] for logits in result.logits]), plain)
        is_drawn(generated, plain, seed=3 + row)


@pytest.mark.parametrize("name", LONG)
def test_the_positions_end(name):
    """A row ends with the reason, a state with an error that says what to do; neither reads beyond the table."""
    model, prompt = backbone(name), TokenSequence.of([5 + number % 90 for number in range(505)])
    result = generate(model, prompt, max_new_tokens=50, eos_token_id=(), keep_state=True)
    assert (result.stop_reason, result.lengths) == (["context"], [512 - 505])
    is_greedy(result.tokens[0], taught(model, prompt.ids.tolist(), result.tokens[0]))
    state = result.state
    state.advance()
    assert state.length == 512
    with pytest.raises(TooLongError, match="has 512 positions"):
        state.step(torch.tensor([7]))
    with pytest.raises(TooLongError, match="512 positions"):
        state.extend([TokenSequence.of([7])])
    with pytest.raises(TooLongError, match="fills all 512 positions"):
        generate(model, state, max_new_tokens=2)
    assert state.length == state.batch.length == 512


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("options", [{}, {"cache": "static"}, {"chunk": 5}, {"use_cache": False}])
@pytest.mark.parametrize("name", EACH_CLASS)
def test_greedy_without_padding(name, options):
    model = long_model(name)
    result = generate(model, PROMPTS[0], max_new_tokens=MANY, eos_token_id=(), **options)
    is_greedy(result.tokens[0], taught(model, PROMPTS[0].ids.tolist(), result.tokens[0]))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gemma3"])
def test_compiled_steps_compile_once(name):
    """Nothing that is made anew on the way looks new to the compiler."""
    torch._dynamo.reset()
    model = long_model(name)
    options = {"eos_token_id": (), "temperature": 1.0, "seed": 5, "cache_length": 12 + MANY, "output_logits": True}
    counters = torch._dynamo.utils.counters["stats"]
    generate(model, PROMPTS, max_new_tokens=7, compile="eager", **options)
    graphs = counters["unique_graphs"]
    result = generate(model, PROMPTS, max_new_tokens=MANY, compile="eager", **options)
    assert counters["unique_graphs"] == graphs
    for row, prompt in enumerate(PROMPTS):
        made = torch.stack([logits[row] for logits in result.logits])
        near(made, taught(model, prompt.ids.tolist(), result.tokens[row]))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", EACH_CLASS)
def test_rows_that_leave_do_not_move_the_others(name):
    """Rows end just before, at and after a boundary, and the batch is narrowed there."""
    model = long_model(name)
    rows = [*PROMPTS, TokenSequence.of(range(50, 58)), TokenSequence.of(range(60, 63))]
    last = [15, 16, 17, MANY]

    def stop(step):
        return [step.index + 1 >= end for end in last]

    result = generate(model, rows, max_new_tokens=MANY, eos_token_id=(), stop=stop, temperature=1.0, seed=2)
    assert result.lengths == last
    assert result.passes[-1].rows == 1
    for row, prompt in enumerate(rows):
        is_drawn(result.tokens[row], taught(model, prompt.ids.tolist(), result.tokens[row]), seed=2 + row)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2.5"])
def test_a_stream_of_600(name):
    """The pieces make the text."""
    model = long_model(name)
    # a run of broken bytes is read anew with every one that follows, so that none shall be broken
    loose = [id_ for token, id_ in model.tokenizer.get_vocab().items() if token.startswith("<0x")]
    options = {"max_new_tokens": 600, "eos_token_id": (), "temperature": 0.9, "seed": 11, "suppress_tokens": loose}
    steps = list(stream(model, PROMPTS, **options))
    assert len(steps) == 600
    for row in range(2):
        answer = [step.tokens[row] for step in steps]
        text = model.tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert "".join(step.text[row] for step in steps) == text


@pytest.mark.usefixtures("small")
def test_a_trace_of_a_long_answer():
    model = long_model("tiny-mistral")
    traced = trace(model, PROMPTS, row=1, max_new_tokens=MANY, eos_token_id=())
    assert len(traced.steps) == MANY
    assert [step.passes[-1].cached_after for step in traced.steps] == [12 + step for step in range(MANY)]
    assert [step.passes[-1].positions[-1] for step in traced.steps] == [4 + step for step in range(MANY)]
    is_greedy(traced.tokens, taught(model, PROMPTS[1].ids.tolist(), traced.tokens))


@pytest.mark.usefixtures("small")
def test_both_engines():
    model = long_model("tiny-gemma3")
    ours, theirs = (
        generate(model, PROMPTS, max_new_tokens=MANY, eos_token_id=(), engine=engine) for engine in ("vertebra", "hf")
    )
    assert ours.tokens == theirs.tokens
