"""Our engine: why rows end, what it gives back, and that rows which end neither slow nor change the others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from transformers import TopKLogitsWarper

from tests.decode.plain import FAMILIES, backbone, load, plain_greedy, plain_logits, plain_rows, prompts
from vertebra.backbone.registry import load_backbone
from vertebra.decode.call import generate, stream
from vertebra.decode.settings import DecodeConfig
from vertebra.decode.state.capture import Capture
from vertebra.decode.state.prefill import prefill
from vertebra.errors import GenerationError, TooLongError
from vertebra.sequence.tokens import TokenSequence

NAME = "tiny-llama2"


@pytest.fixture(scope="module")
def model():
    return backbone(NAME)


@pytest.fixture(scope="module")
def plain():
    return plain_rows(NAME, prompts(NAME), 12)


def cut(row: list[int], ends: list[int]) -> list[int]:
    return row[: min([row.index(end) for end in ends if end in row], default=len(row) - 1) + 1]


def test_several_end_ids_and_rows_that_leave(model, plain):
    ends = [plain[0][2], plain[1][5]]
    result = generate(model, prompts(NAME), max_new_tokens=12, eos_token_id=ends)
    assert result.tokens == [cut(row, ends) for row in plain]
    assert result.stop_reason == ["eos", "eos", "length"]
    rows = [one.rows for one in result.passes]
    assert rows[0] == 3
    assert rows[-1] == 1  # the row that went on was alone in the end
    assert len(rows) == 12
    assert result.sequences.shape == (3, 12)
    assert (result.sequences[0, len(result.tokens[0]) :] == model.pad_token_id).all()


def test_rows_that_end_do_not_change_the_others(model):
    """Every row of a large ragged batch, each with its own end, is what it is alone; drawn ones too."""
    sequences = prompts(NAME, (3, 9, 14, 6, 20, 1, 11, 8), seed=3)
    for options in ({}, {"temperature": 1.0, "top_p": 0.9, "seed": 40}, {"repetition_penalty": 1.4}):
        whole = generate(model, sequences, max_new_tokens=10, eos_token_id=(), **options)
        ends = [row[3] for row in whole.tokens[::2]] + [whole.tokens[1][7]]
        result = generate(model, sequences, max_new_tokens=10, eos_token_id=ends, **options)
        assert result.tokens == [cut(row, ends) for row in whole.tokens]
        assert result.passes[-1].rows < 8
        for row, one in enumerate(sequences):
            seeded = {**options, "seed": options["seed"] + row} if "seed" in options else options
            alone = generate(model, one, max_new_tokens=10, eos_token_id=ends, **seeded)
            assert alone.tokens[0] == result.tokens[row]


def test_passes_and_timings(model):
    """What ran, and when: one prefill of 17 columns, then steps of one, until the rows have left one by one."""
    ends = [row[at] for row, at in zip(plain_rows(NAME, prompts(NAME), 8), (1, 4, 7), strict=True)]
    result = generate(model, prompts(NAME), max_new_tokens=8, eos_token_id=ends, chunk=10)
    assert [one.kind for one in result.passes] == ["prefill", "extend"] + ["step"] * 7
    assert result.shape_of_passes == [10, 7] + [1] * 7
    assert [one.cached for one in result.passes] == [0, 10, *range(17, 24)]
    assert [one.rows for one in result.passes] == [3] * 6 + [1] * 3  # when half of them have ended, they leave
    taken = result.timings
    assert len(taken.steps) == 7
    assert 0 < taken.prefill <= taken.first_token <= taken.total
    assert taken.first_token + sum(taken.steps) <= taken.total
    assert sum(one.seconds for one in result.passes) <= taken.total
    assert taken.tokens_per_second == pytest.approx(7 / sum(taken.steps))


def test_stop_strings(model, plain):
    text = model.tokenizer.decode(plain[0], skip_special_tokens=True)
    string = text[6:9]
    result = generate(model, prompts(NAME)[0], max_new_tokens=12, eos_token_id=(), stop_strings=string)
    assert result.stop_reason == ["stop string"]
    assert result.text == [text[: text.index(string)]]
    assert result.tokens[0] == plain[0][: len(result.tokens[0])]
    pieces = list(stream(model, prompts(NAME)[0], max_new_tokens=12, eos_token_id=(), stop_strings=[string, "never"]))
    assert "".join(step.text[0] for step in pieces) == result.text[0]


def test_streaming_is_generating(model):
    result = generate(model, prompts(NAME), max_new_tokens=9, temperature=0.9, seed=5)
    steps = list(stream(model, prompts(NAME), max_new_tokens=9, temperature=0.9, seed=5))
    generated = [[step.tokens[row] for step in steps if step.live[row]] for row in range(3)]
    assert generated == result.tokens
    assert ["".join(step.text[row] for step in steps) for row in range(3)] == result.text
    assert [step.index for step in steps] == list(range(len(steps)))
    few = list(itertools.islice(stream(model, prompts(NAME), max_new_tokens=9), 2))  # and left alone after two
    assert len(few) == 2


def test_time_and_the_callers_word(model):
    result = generate(model, prompts(NAME), max_new_tokens=200, max_time=1e-6, eos_token_id=())
    assert result.stop_reason == ["time"] * 3
    assert result.lengths == [1] * 3
    result = generate(
        model, prompts(NAME), max_new_tokens=9, eos_token_id=(), stop=lambda step: [step.index == 1, False, False]
    )
    assert result.stop_reason == ["stopped", "length", "length"]
    assert result.lengths == [2, 9, 9]
    with pytest.raises(GenerationError, match="2 answers for 3 rows"):
        generate(model, prompts(NAME), max_new_tokens=9, stop=lambda step: [False, False])


def test_the_models_positions_end():
    model = load_backbone(
        NAME, inference_mode=True, weights=True, dtype="float32", config_overrides={"max_position_embeddings": 20}
    )
    result = generate(model, prompts(NAME), max_new_tokens=50, eos_token_id=())
    assert result.stop_reason == ["context"] * 3
    assert result.lengths == [3] * 3  # the longest prompt has 17
    with pytest.raises(TooLongError, match="fills all 20 positions"):
        generate(model, prompts(NAME, (20,)), max_new_tokens=2)
    with pytest.raises(TooLongError, match="row 1 has 23 positions"):
        generate(model, prompts(NAME, (4, 23)), max_new_tokens=2)


def test_logits_scores_and_hidden_states(model, plain):
    """Raw logits, processed scores, and hidden states as documented, held against the model called plainly."""
    options = {"output_logits": True, "output_scores": True, "output_hidden_states": True, "output_attentions": True}
    prompt = prompts(NAME)[0]
    result = generate(model, prompt, max_new_tokens=4, eos_token_id=(), repetition_penalty=1.2, **options)
    ids = prompt.ids.tolist()
    assert [len(result.logits), len(result.scores), len(result.hidden_states), len(result.attentions)] == [4] * 4
    for step in range(4):
        with torch.no_grad():
            out = model.llm(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
        torch.testing.assert_close(result.logits[step], out.logits[:, -1], atol=1e-4, rtol=1e-4)
        width = len(ids) if step == 0 else 1
        assert len(result.hidden_states[step]) == model.llm.config.num_hidden_layers + 1
        for ours, theirs in zip(result.hidden_states[step], out.hidden_states, strict=True):
            assert ours.shape == (1, width, 64)
            torch.testing.assert_close(ours, theirs[:, -width:], atol=1e-4, rtol=1e-4)
        assert result.attentions[step][0].shape == (1, 4, width, len(ids))
        ids.append(result.tokens[0][step])
        assert int(result.scores[step].argmax()) == ids[-1]
    assert not torch.equal(result.scores[0], result.logits[0])


def test_capture_keeps_what_was_chosen(model):
    chosen = Capture(steps=[0, 2], layers=[-1])
    result = generate(model, prompts(NAME), max_new_tokens=4, eos_token_id=(), output_hidden_states=chosen, chunk=5)
    assert [None if layers is None else [tuple(layer.shape) for layer in layers] for layers in result.hidden_states] == [
        [(3, 17, 64)], None, [(3, 1, 64)], None,
    ]  # fmt: skip
    whole = generate(model, prompts(NAME), max_new_tokens=4, eos_token_id=(), output_hidden_states=True)
    torch.testing.assert_close(result.hidden_states[0][0], whole.hidden_states[0][-1], atol=1e-4, rtol=1e-4)
    attentions = generate(
        model, prompts(NAME), max_new_tokens=4, eos_token_id=(), output_attentions=Capture(steps=[1], layers=[0])
    ).attentions
    assert [layers is None for layers in attentions] == [True, False, True, True]
    everything = generate(model, prompts(NAME), max_new_tokens=4, eos_token_id=(), output_attentions=True).attentions
    torch.testing.assert_close(attentions[1][0], everything[1][0])
    assert attentions[1][0].shape == (3, 4, 1, 18)
    with pytest.raises(GenerationError, match=r"layers \[9\]"):
        generate(model, prompts(NAME), max_new_tokens=2, output_hidden_states=Capture(layers=[9]))


def test_several_answers_share_the_prompt(model):
    options = {"max_new_tokens": 6, "temperature": 1.0, "eos_token_id": ()}
    result = generate(model, prompts(NAME), num_return_sequences=2, seed=[1, 2, 3, 4, 5, 6], **options)
    assert [one.rows for one in result.passes] == [3] + [6] * 5
    twice = [prompt for prompt in prompts(NAME) for _ in range(2)]
    assert result.tokens == generate(model, twice, seed=[1, 2, 3, 4, 5, 6], **options).tokens
    assert len({tuple(row) for row in result.tokens}) == 6


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 2**100, [1, 2**64], 1.5, "7", np.array([1.5])])
def test_a_seed_that_no_stream_has_is_refused(seed):
    with pytest.raises(GenerationError, match="seed is"):
        DecodeConfig(temperature=1.0, seed=seed)


@pytest.mark.parametrize(
    "seed",
    [5, np.int64(5), torch.tensor(5), [np.int64(5), 6], (5, 6), np.array([5, 6]), torch.tensor([5, 6])],
    ids=repr,
)
def test_seeds_of_any_kind_of_number(model, seed):
    asked, options = prompts(NAME, (4, 4)), {"max_new_tokens": 3, "temperature": 1.0}
    assert generate(model, asked, seed=seed, **options).tokens == generate(model, asked, seed=[5, 6], **options).tokens


def test_seeds(model):
    options = {"max_new_tokens": 6, "temperature": 1.0, "eos_token_id": ()}
    torch.manual_seed(3)
    first = generate(model, prompts(NAME), **options)
    assert generate(model, prompts(NAME), seed=first.seeds, **options).tokens == first.tokens
    torch.manual_seed(3)
    assert generate(model, prompts(NAME), **options).tokens == first.tokens
    with pytest.raises(GenerationError, match="2 seeds for 3 rows"):
        generate(model, prompts(NAME), seed=[1, 2], **options)
    with pytest.raises(GenerationError, match="no effect"):
        generate(model, prompts(NAME), seed=1)


def test_foreign_processors_read_the_rows(model):
    """A processor of transformers, and a function: each gets the text of the rows and all scores."""
    seen = []

    def count(ids, scores):
        seen.append(tuple(ids.shape))
        return scores

    result = generate(
        model,
        prompts(NAME),
        max_new_tokens=3,
        eos_token_id=(),
        logits_processor=[count, TopKLogitsWarper(1)],
        seed=0,
        temperature=5.0,
    )
    assert seen == [(3, 17), (3, 18), (3, 19)]
    assert result.tokens == plain_rows(NAME, prompts(NAME), 3)


def test_minimum_and_forced_ids(model, plain):
    end = plain[0][0]
    result = generate(model, prompts(NAME)[0], max_new_tokens=6, eos_token_id=end, min_new_tokens=3)
    assert result.lengths[0] >= 3
    assert end not in result.tokens[0][:3]
    result = generate(
        model, prompts(NAME)[0], max_new_tokens=4, forced_eos_token_id=2, forced_bos_token_id=9, eos_token_id=2
    )
    assert result.tokens[0][0] == 9
    assert result.tokens[0][-1] == 2
    assert result.stop_reason == ["eos"]
    assert generate(model, prompts(NAME)[0], max_length=15, eos_token_id=()).lengths == [3]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 1}])
def test_logits_that_are_no_numbers(options, caplog):
    """The row is named and ends; what it said is kept, and the others go on."""
    model = load_backbone(NAME, inference_mode=True, weights=True, dtype="float32")
    sequences = prompts(NAME)
    whole = generate(model, sequences, max_new_tokens=6, eos_token_id=(), **options)
    poisoned = whole.tokens[1][2]  # after it the second row's logits are NaN
    others = [cut(row, [poisoned]) if poisoned in row else row for row in whole.tokens]
    with torch.no_grad():
        model.llm.get_input_embeddings().weight[poisoned] = float("nan")
    result = generate(model, sequences, max_new_tokens=6, eos_token_id=(), **options)
    assert result.tokens == others
    assert result.stop_reason[1] == "not a number"
    assert result.failed == [1]
    assert f"row 1 ends at step {len(others[1])}: its logits hold NaN or infinity" in caplog.text
    assert result.stop_reason[0] == result.stop_reason[2] == "length"


def test_nothing_possible(model):
    everything = list(range(model.num_rows))
    result = generate(model, prompts(NAME), max_new_tokens=3, suppress_tokens=everything)
    assert result.stop_reason == ["nothing possible"] * 3
    assert result.tokens == [[], [], []]
    assert result.sequences.shape == (3, 0)
    assert result.failed == [0, 1, 2]
    fixed = generate(model, prompts(NAME), max_new_tokens=3, suppress_tokens=everything, remove_invalid_values=True)
    assert fixed.failed == [0, 1, 2]


def test_a_state_is_not_changed_by_asking(model, plain):
    state = prefill(model, prompts(NAME))
    for _ in range(2):
        assert generate(model, state, max_new_tokens=12, eos_token_id=()).tokens == plain
        assert state.length == 17
    with pytest.raises(GenerationError, match="the state decided that"):
        generate(model, state, max_new_tokens=2, cache="static")
    with pytest.raises(GenerationError, match="another model"):
        generate(backbone("tiny-gpt2"), state, max_new_tokens=2)


def test_training_mode(model):
    """Pieces refuse it; a call in the middle of a training run turns dropout off and on again."""
    trained = load_backbone("tiny-gpt2", dtype="float32")
    dropouts = [module for module in trained.llm.modules() if isinstance(module, torch.nn.Dropout)]
    for module in dropouts:
        module.p = 0.5
    assert trained.llm.training
    reported = [generate(trained, prompts("tiny-gpt2"), max_new_tokens=5, eos_token_id=()).tokens for _ in range(2)]
    assert reported[0] == reported[1] == plain_rows("tiny-gpt2", prompts("tiny-gpt2"), 5)
    assert trained.llm.training
    assert all(module.training for module in dropouts)
    with pytest.raises(GenerationError, match="training mode"):
        prefill(trained, prompts("tiny-gpt2"))


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16_stays_near(name):
    """Within two percent of the logits' size of the uncached loop in bf16, step by step, the same ids given."""
    model = load(name, "bfloat16")
    prompt = prompts(name)[2]
    state, ids = prefill(model, prompt), prompt.ids.tolist()
    for _ in range(8):
        with torch.no_grad():
            whole = model.llm(torch.tensor([ids]), use_cache=False).logits[0, -1].float()
        assert float((state.logits[0].float() - whole).abs().max()) <= 0.02 * float(whole.abs().max())
        ids.append(int(whole.argmax()))
        state.step(torch.tensor(ids[-1:]))


def test_blocks_documents_and_free_rules(model):
    """What training can say, decoding can: both ways inside a block, a second document, a rule of one's own."""
    (one, two, _) = prompts(NAME)
    blocked = one.with_vectors(block=one.block + 1)
    packed = TokenSequence.join([one, two], new_documents=True)
    result = generate(model, packed, max_new_tokens=6, eos_token_id=())
    assert result.tokens == [plain_greedy(NAME, two, 6)]  # the first document is not seen
    blind = {"attend": lambda query, key: (key.index >= 4) | (query.index == key.index)}
    for prompt, options in ((blocked, {}), (one, blind), (packed, {})):
        cached = generate(model, prompt, max_new_tokens=6, eos_token_id=(), **options)
        uncached = generate(model, prompt, max_new_tokens=6, eos_token_id=(), use_cache=False, **options)
        assert cached.tokens == uncached.tokens
    assert generate(model, one, max_new_tokens=6, eos_token_id=()).tokens != cached.tokens
    rest = TokenSequence.of(one.ids[4:])
    seen = generate(model, one, max_new_tokens=1, output_logits=True, **blind).logits[0][0]
    assert not torch.allclose(seen, plain_logits(NAME, one.ids.tolist()), atol=1e-3)
    # rotary positions are relative: blind to its beginning, the row is what it is without
    torch.testing.assert_close(seen, plain_logits(NAME, rest.ids.tolist()), atol=1e-4, rtol=1e-4)
