"""Constraints: what is said is possible, it is the best that is possible, and the impossible is refused at once."""

from __future__ import annotations

import json
import re

import pytest
import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer

from tests.decode.plain import backbone, plain_logits, prompts
from vertebra.backbone.tiny import TINY
from vertebra.decode.call import generate, stream
from vertebra.decode.choose.constraint import AllowedIds, AllowedSteps
from vertebra.decode.choose.grammar import json_schema, lark, one_of, regex
from vertebra.decode.state.prefill import prefill
from vertebra.errors import GenerationError

NAME = "tiny-llama2"
BINS = range(700, 764)


def plain_constrained(name: str, prompt, steps: list[list[int]]) -> list[int]:
    ids = prompt.ids.tolist()
    for allowed in steps:
        logits = plain_logits(name, ids)
        ids.append(max(allowed, key=lambda token, logits=logits: float(logits[token])))
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", TINY)
def test_allowed_ids(name):
    """Rows of the head alone, in every family: with a bias, a soft cap, a tied matrix."""
    steps = [list(BINS)] * 5
    result = generate(backbone(name), prompts(name), max_new_tokens=5, constraint=AllowedIds(BINS), eos_token_id=())
    assert result.tokens == [plain_constrained(name, one, steps) for one in prompts(name)]
    step = next(stream(backbone(name), prompts(name), max_new_tokens=1, constraint=AllowedIds(BINS)))
    assert step.logits.shape == (3, 64)
    assert step.ids.tolist() == list(BINS)
    whole = torch.stack([plain_logits(name, one.ids.tolist()) for one in prompts(name)])
    torch.testing.assert_close(step.logits, whole[:, BINS.start : BINS.stop], atol=1e-4, rtol=1e-4)


def test_other_ids_at_each_step():
    steps = [[5], [6, 7], list(range(100, 200)), [8, 9]]
    constraint = AllowedSteps(steps)
    for _ in range(2):  # one object serves any number of calls
        result = generate(backbone(NAME), prompts(NAME), max_new_tokens=9, constraint=constraint)
        assert result.tokens == [plain_constrained(NAME, one, steps) for one in prompts(NAME)]
        assert result.stop_reason == ["constraint"] * 3
        assert result.shape_of_passes == [17, 1, 1, 1]


def test_with_rules_logits_and_a_state():
    """Rules see the few columns; whoever wants all logits gets the whole head; a state has them already."""
    model = backbone(NAME)
    options = {
        "max_new_tokens": 6,
        "constraint": AllowedIds(BINS),
        "repetition_penalty": 1.5,
        "no_repeat_ngram_size": 1,
        "eos_token_id": (),
    }
    narrow = generate(model, prompts(NAME), **options)
    whole = generate(model, prompts(NAME), output_logits=True, output_scores=True, **options)
    assert narrow.tokens == whole.tokens
    assert all(len(set(row)) == 6 for row in narrow.tokens)
    assert whole.logits[0].shape == (3, model.num_rows)
    assert torch.isfinite(whole.scores[0]).nonzero()[:, 1].unique().tolist() == list(BINS)
    assert generate(model, prefill(model, prompts(NAME)), **options).tokens == narrow.tokens
    drawn = [
        generate(model, prompts(NAME), temperature=1.0, top_k=9, seed=4, output_logits=all_of, **options).tokens
        for all_of in (False, True)
    ]
    assert drawn[0] == drawn[1]
    static = generate(model, prompts(NAME), cache="static", **options)
    assert static.tokens == narrow.tokens
    assert generate(model, prompts(NAME), engine="hf", **options).tokens == narrow.tokens


def test_an_end_is_possible_only_where_it_is_allowed():
    model = backbone(NAME)
    result = generate(model, prompts(NAME), max_new_tokens=9, constraint=AllowedIds([2]), eos_token_id=2)
    assert result.tokens == [[2]] * 3
    assert result.stop_reason == ["eos"] * 3
    result = generate(model, prompts(NAME), max_new_tokens=9, constraint=AllowedIds(BINS), eos_token_id=2)
    assert result.stop_reason == ["length"] * 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AllowedIds([]), "allows no id at all"),
        (lambda: AllowedIds([3, -1]), "expected token ids"),
        (lambda: AllowedSteps([]), "no steps"),
        (lambda: AllowedSteps([[3], []]), "step 1 of the constraint allows no id"),
        (lambda: AllowedIds([5000]), "step 0 allows 5000"),
        (lambda: AllowedSteps([[1]] * 5), "5 steps, and only 4 tokens"),
        (lambda: regex("(left"), "(?s)regular expression.*unclosed group"),
        (lambda: json_schema({"type": "objekt"}), "JSON schema cannot be followed"),
        (lambda: json_schema('{"type": '), "is no JSON"),
        (lambda: json_schema({"type": {1}}), "is no JSON"),
        (
            lambda: json_schema({"allOf": [{"type": "integer", "minimum": 3}, {"type": "integer", "maximum": 1}]}),
            "Unsatisfiable",
        ),
        (lambda: lark("start: nothing"), "Lark grammar cannot be followed"),
        (lambda: one_of([]), "expected a list of texts"),
        (lambda: one_of("yes"), "expected a list of texts"),
    ],
)
def test_the_impossible_is_refused_before_anything_runs(make, message):
    model = backbone(NAME)
    ran = []
    handle = model.llm.register_forward_pre_hook(lambda *_: ran.append(1))
    try:
        with pytest.raises(GenerationError, match=message):
            generate(model, prompts(NAME), max_new_tokens=4, constraint=make())
    finally:
        handle.remove()
    assert not ran


@pytest.mark.parametrize("name", TINY)
def test_a_regular_expression(name):
    """Every tokenizer; the best token of those that can still become a match, by the library's own word."""
    pattern = r"(left|right) [0-9]{1,3}cm"
    result = generate(backbone(name), prompts(name), max_new_tokens=20, constraint=regex(pattern))
    for row, text in enumerate(result.text):
        assert re.fullmatch(pattern, text), text
        assert result.stop_reason[row] in ("constraint", "eos")
    for prompt, generated in zip(prompts(name), result.tokens, strict=True):
        assert generated == plain_grammar(name, prompt, pattern, len(generated))


def plain_grammar(name: str, prompt, pattern: str, count: int) -> list[int]:
    """One row, by hand: the likeliest id that a matcher of its own lets through, one after the other."""
    model = backbone(name)
    backend = from_tokenizer(model.tokenizer, n_vocab=model.num_rows, eos_token=list(model.eos_token_ids))
    matcher, ids = LLMatcher(backend, LLMatcher.grammar_from_regex(pattern)), prompt.ids.tolist()
    for _ in range(count):
        bits = matcher.compute_bitmask()
        logits = plain_logits(name, ids)
        possible = [token for token in range(len(logits)) if bits[token // 8] >> token % 8 & 1]
        ids.append(max(possible, key=lambda token, logits=logits: float(logits[token])))
        matcher.consume_token(ids[-1])
    return ids[len(prompt) :]


def test_json():
    schema = {
        "type": "object",
        "properties": {"side": {"enum": ["left", "right"]}, "steps": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["side", "steps"],
        "additionalProperties": False,
    }
    model = backbone("tiny-qwen2.5")
    result = generate(
        model,
        prompts("tiny-qwen2.5"),
        max_new_tokens=80,
        constraint=json_schema(schema),
        temperature=1.0,
        top_k=20,
        seed=1,
    )
    for text, reason in zip(result.text, result.stop_reason, strict=True):
        printed = json.loads(text)
        assert set(printed) == {"side", "steps"}
        assert printed["side"] in ("left", "right")
        assert reason in ("constraint", "eos")
    loose = generate(
        model, prompts("tiny-qwen2.5"), max_new_tokens=9, constraint=json_schema(schema, loose=True), seed=1, top_k=20
    )
    assert all(text.startswith("{") for text in loose.text)


def test_answers_letter_by_letter():
    answers = ["turn left.", "a+b (c)", "1/2 [x] {y}", "50% \\ & | ^ $"]
    for answer in answers:
        result = generate(backbone(NAME), prompts(NAME)[0], max_new_tokens=40, constraint=one_of([answer]))
        assert result.text == [answer]
    spaced = generate(backbone(NAME), prompts(NAME), max_new_tokens=40, constraint=one_of(answers, space=True))
    assert all(text.removeprefix(" ") in answers for text in spaced.text)


@pytest.mark.parametrize("name", ["tiny-smollm2", "tiny-llama2", "tiny-llama3"])
def test_a_control_token_in_a_grammar_is_text(name):
    """Its letters are said; the token, which would end the row, is not."""
    model = backbone(name)
    token = model.tokenizer.eos_token
    schema = {
        "type": "object",
        "properties": {token: {"enum": [f"{token}/"]}},
        "required": [token],
        "additionalProperties": False,
    }
    for constraint, text in (
        (json_schema(schema), json.dumps({token: f"{token}/"})),
        (json_schema(json.dumps(schema)), json.dumps({token: f"{token}/"})),
        (one_of([f"a {token}/b"]), f"a {token}/b"),
    ):
        result = generate(model, prompts(name)[0], max_new_tokens=80, constraint=constraint)
        assert result.text == [text]
        assert token not in model.tokenizer.convert_ids_to_tokens(result.tokens[0][:-1])


def test_rows_that_leave_keep_their_grammar():
    """Rows end at different steps, and the others go on in their own grammars."""
    constraint = regex(r"[0-9]|[a-z]{8}")
    sequences = prompts(NAME, (3, 9, 4, 7, 12, 5), seed=11)
    result = generate(backbone(NAME), sequences, max_new_tokens=12, constraint=constraint)
    alone = [generate(backbone(NAME), one, max_new_tokens=12, constraint=constraint).tokens[0] for one in sequences]
    assert result.tokens == alone


def test_a_grammar_and_beams():
    with pytest.raises(GenerationError, match="beams change places"):
        generate(backbone(NAME), prompts(NAME), num_beams=2, max_new_tokens=3, constraint=regex("a"))
