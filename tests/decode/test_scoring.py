"""Likelihoods of answers: with the prompt computed once, what a plain pass over prompt and answer together gives."""

from __future__ import annotations

import pytest
import torch

from tests.decode.plain import FAMILIES, backbone, prompts
from tests.model.models import batch_of, page_row, shared, slots, text_row
from vertebra.decode.call import generate
from vertebra.decode.scoring import score
from vertebra.decode.state.prefill import prefill
from vertebra.errors import GenerationError, SequenceError


@torch.no_grad()
def plain(name: str, prompt, ids: list[int]) -> list[float]:
    whole = torch.tensor([*prompt.ids.tolist(), *ids])
    logs = backbone(name).llm(whole[None], use_cache=False).logits[0].log_softmax(-1)
    return [float(logs[len(prompt) + at - 1, token]) for at, token in enumerate(ids)]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name):
    sequences = prompts(name)
    answers = [prompt.ids.tolist() for prompt in prompts(name, (3, 1, 7, 2), seed=9)]
    scores = score(backbone(name), sequences, answers, rows_at_once=5)
    for row, prompt in enumerate(sequences):
        for place, ids in enumerate(answers):
            torch.testing.assert_close(
                torch.tensor(scores.log_probs[row][place]), torch.tensor(plain(name, prompt, ids)), atol=2e-4, rtol=2e-4
            )
    assert [one.columns for one in scores.passes] == [17, 2, 6]  # the prompts once; single ids need no pass
    assert scores.tokens[2] == answers


def test_what_greedy_says_is_likeliest():
    name = "tiny-llama2"
    generated = generate(backbone(name), prompts(name), max_new_tokens=1, eos_token_id=()).tokens
    answers = [[one, [7], [8, 9]] for one in generated]
    scores = score(backbone(name), prompts(name), answers)
    assert scores.best == [0, 0, 0]
    assert all(abs(sum(row) - 1) < 1e-9 for row in scores.probability)
    assert scores.per_token[0][2] == pytest.approx(scores.total[0][2] / 2)


def test_text_a_state_and_control_tokens():
    model = backbone("tiny-qwen2.5")
    prompt = prompts("tiny-qwen2.5")[0]
    state = prefill(model, prompt)
    scores = score(model, state, [" left", " right</s>", "<|im_end|>"])
    assert state.length == len(prompt)  # as it was
    assert score(model, prompt, [" left", " right</s>", "<|im_end|>"]).total == scores.total
    end = model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end not in scores.tokens[0][2]  # typed, it is text
    state.trim(9)
    again = score(model, state, [" left"])
    torch.testing.assert_close(
        again.total[0][0], sum(plain("tiny-qwen2.5", prompt.cut(0, 9), scores.tokens[0][0])), atol=1e-3, rtol=1e-3
    )


def test_images_and_pages():
    model = shared(inference_mode=True, weights=True)
    rows = [page_row(0, images=1, lines=2), text_row(6)]
    answers = [[40, 41], [42, 43, 44]]
    together = score(model, batch_of(model, rows), answers)
    for row, one in enumerate(rows):
        alone = score(model, batch_of(model, [one]), answers)
        torch.testing.assert_close(together.total[row], alone.total[0], atol=1e-3, rtol=1e-3)
    assert together.passes[0].kind == "prefill"


def test_bad_candidates():
    model, sequences = backbone("tiny-llama2"), prompts("tiny-llama2")
    for wrong, text in (
        ([[3], []], "candidate 1 is empty"),
        ("yes", "expected a list"),
        ([], "expected a list"),
        ([["a"], ["b"]], "2 lists of candidates for 3 rows"),
        ([["a"], ["b"], [[1, 5000]]], "candidate 0 of row 2 holds 5000"),
        ([[1], ""], "candidate 1 is empty"),
        ([["a"], [], ["b"]], r"candidates hold \['a'\]; .* none empty, for each row"),
        (["a", ["b"]], r"candidates hold \['b'\]"),
        ([[1.5]], r"candidates hold \[1.5\]"),
        ([5], "a candidate is 5; expected text, ids, or a TokenSequence"),
        ([None], "a candidate is None"),
        ([[["a"]], ["b"], ["c"]], r"a candidate is \['a'\]"),
    ):
        with pytest.raises(GenerationError, match=text):
            score(model, sequences, wrong)
    with pytest.raises(SequenceError, match="with slots"):
        score(model, sequences, [slots("image", 2)])
    for wrong in (0, "x", 1.5, None, True):
        with pytest.raises(GenerationError, match=f"rows_at_once is {wrong!r}; expected a whole number from 1 on"):
            score(model, sequences, [[3]], rows_at_once=wrong)
