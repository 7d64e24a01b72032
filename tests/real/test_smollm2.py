"""SmolLM2-135M-Instruct: ids, likelihood, the checks, long answers, long prompts, long dialogs."""

from __future__ import annotations

import pytest
import torch

from tests.real.plain import ROUNDING, asked, assert_greedy, teacher_forced
from vertebra import TokenSequence, check, generate, load_backbone
from vertebra.decode import prefill
from vertebra.decode.state.language import language_of
from vertebra.sequence.roles import Role

TEXT = "The robot arm picks up the red block and puts it on the blue plate. Then it moves back to its home position."
NLL = 4.0309
"""Nats a token of `TEXT`, the first of its tokens given."""
SUBJECTS = ["robots", "rivers", "bread", "the moon", "bicycles", "old maps", "bees", "glass", "winter", "copper"]


def test_it_is_the_whole_model(smollm2):
    assert sum(p.numel() for p in smollm2.llm.parameters()) == 134_515_008
    assert smollm2.num_rows == 49_152


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_step_runs_in_few_operations(smollm2_folder, dtype):
    """In bfloat16 the rounding of thirty layers, on special tokens with huge activations, once hid that they agree."""
    backbone = load_backbone(smollm2_folder, inference_mode=True, weights=True, builder="chatml", dtype=dtype)
    step = language_of(backbone).fused
    assert step is not None
    assert step.free()


def test_numbers_are_cut_into_digits_as_in_training(smollm2):
    ids = smollm2.tokenizer("1987", add_special_tokens=False).input_ids
    assert smollm2.tokenizer.convert_ids_to_tokens(ids) == ["1", "9", "8", "7"]
    assert smollm2.tokenizer.bos_token_id not in smollm2.tokenizer("hello").input_ids


def test_likelihood_of_a_text(smollm2):
    """Weights that were dequantized or laid out wrong would be near ln 49152 = 10.8."""
    ids = torch.tensor([smollm2.tokenizer(TEXT).input_ids])
    with torch.inference_mode():
        loss = smollm2(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
    assert float(loss) == pytest.approx(NLL, abs=5e-3)


def test_it_answers(smollm2):
    answer = generate(smollm2, asked(smollm2, "What is the capital of France? Answer in one word."), max_new_tokens=20)
    assert "Paris" in answer.text[0]
    assert answer.stop_reason == ["eos"]


@pytest.mark.long
def test_an_answer_of_1500_tokens(smollm2):
    """Across every buffer: positions made ahead, masks, the cache's own room."""
    prompt = asked(smollm2, "Write a very long story about a robot that learns to bake bread.")
    answer = generate(smollm2, prompt, max_new_tokens=1500, min_new_tokens=1500).tokens[0]
    assert len(answer) == 1500
    assert_greedy(smollm2, prompt.ids.tolist(), answer, never=smollm2.eos_token_ids)  # as `min_new_tokens` has it


def test_a_prompt_of_2000_tokens(smollm2):
    ids = smollm2.tokenizer((TEXT + " ") * 120, add_special_tokens=False).input_ids[:2000]
    prompt = TokenSequence.of(ids, role=Role.USER)
    assert_greedy(smollm2, ids, generate(smollm2, prompt, max_new_tokens=8).tokens[0])


def test_a_dialog_of_20_turns(smollm2):
    """One cache for all of it, extended turn by turn beyond 600 tokens: one plain pass over the whole finds every answer."""
    turns = [asked(smollm2, f"Tell me one thing about {SUBJECTS[n % 10]}, number {n}.").ids.tolist() for n in range(20)]
    close = smollm2.tokenizer("<|im_end|>\n", add_special_tokens=False).input_ids
    state, dialog, answers = prefill(smollm2, TokenSequence.of(turns[0])), list(turns[0]), []
    for following in [*turns[1:], []]:
        found = generate(smollm2, state, max_new_tokens=12, keep_state=True)
        answer = found.tokens[0]
        answers.append((len(dialog), answer))
        ended = answer[-1] in smollm2.eos_token_ids
        new = [*(close[1:] if ended else close), *following]
        state, dialog = found.state, [*dialog, *answer, *new]
        state.extend([TokenSequence.of(new)])
    assert len(answers) == 20
    assert state.batch["input_ids"][0].tolist() == dialog
    assert len(dialog) > 600
    reply = teacher_forced(smollm2, dialog[:1], dialog[1:])
    for start, answer in answers:
        logits = reply[start - 1 : start - 1 + len(answer)]
        chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        assert float((logits.amax(1) - chosen).max()) < ROUNDING


@pytest.mark.parametrize(("dtype", "inference"), [("float32", False), ("bfloat16", True)])
def test_every_check_passes(smollm2_folder, dtype, inference):
    """In float32 with gradients; in bfloat16 within the wider bounds of docs/check.md."""
    report = check(smollm2_folder, inference_mode=inference, weights=inference, dtype=dtype, builder="chatml")
    assert report.failed == ()
    reply = {result.name: result.message for result in report.results}
    assert "`model.layers.11`, 37% of float16's largest number" in reply["half-precision"]
    assert "SmolLM, trained by Hugging Face" in reply["chat-template"]
    assert "49152 tokens, 49152 rows of the embedding, 49152 of the head" in reply["rows"]
