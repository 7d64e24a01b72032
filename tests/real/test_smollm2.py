"""SmolLM2-135M-Instruct: ids, likelihood, long answers, long dialogs, and Hugging Face's own tokens beside ours."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from vertebra import check_backbone, collate, load_backbone, render
from vertebra.decode.call import generate
from vertebra.decode.state.language import language_of
from vertebra.sequence.roles import Role
from vertebra.sequence.tokens import TokenSequence

TEXT = "The robot arm picks up the red block and puts it on the blue plate. Then it moves back to its home position."
NLL = 4.0309
"""Nats a token of `TEXT`, the first of its tokens given."""
SUBJECTS = ["robots", "rivers", "bread", "the moon", "bicycles", "old maps", "bees", "glass", "winter", "copper"]
TASKS = [
    "Explain {} in one sentence.",
    "Write a short poem about {}.",
    "Name three facts about {}.",
    "Why do people like {}?",
]


def asked(backbone, *turns: str) -> TokenSequence:
    """A dialog whose turns alternate, open for the next answer."""
    roles = ("user", "assistant")
    conversation = [{"role": roles[number % 2], "content": text} for number, text in enumerate(turns)]
    return render(conversation, backbone.prompt_builder_fn, backbone.tokenizer, anchor=backbone.anchor)


def teacher_forced(backbone, prompt: TokenSequence, answer: list[int]) -> torch.Tensor:
    """[N, V]: what one plain pass over prompt and answer says at each answered position."""
    ids = torch.tensor([[*prompt.ids.tolist(), *answer]])
    with torch.inference_mode():
        logits = backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    return logits[len(prompt) - 1 : -1].clone()  # one that may be written to


def assert_greedy(backbone, prompt: TokenSequence, answer: list[int]) -> None:
    """Every token is the likeliest by the plain pass, but for what rounding may turn round."""
    logits = teacher_forced(backbone, prompt, answer)
    chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
    assert float((logits.amax(1) - chosen).max()) < 1e-3


def test_it_is_the_whole_model(smollm2):
    assert sum(p.numel() for p in smollm2.llm.parameters()) == 134_515_008
    assert smollm2.num_rows == 49_152
    assert language_of(smollm2).fused is not None


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


def test_greedy_tokens_are_those_of_hugging_face(smollm2, smollm2_folder):
    """Forty prompts in batches of ten, ragged: a token may differ only where both are as likely."""
    prompts = [asked(smollm2, task.format(subject)) for subject in SUBJECTS for task in TASKS]
    stock = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32).eval()
    for first in range(0, len(prompts), 10):
        some = prompts[first : first + 10]
        ours = generate(smollm2, some, max_new_tokens=24).tokens
        batch = collate(some, pad_id=smollm2.pad_token_id, side="left")
        with torch.inference_mode():
            theirs = stock.generate(
                batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=24, do_sample=False,
                pad_token_id=smollm2.pad_token_id,
            )  # fmt: skip
        for prompt, mine, full in zip(some, ours, theirs[:, batch.length :].tolist(), strict=True):
            if mine != full[: len(mine)]:
                assert_greedy(smollm2, prompt, mine)


def test_an_answer_of_1500_tokens(smollm2):
    """Across every buffer: positions made ahead, masks, the cache's own room."""
    prompt = asked(smollm2, "Write a very long story about a robot that learns to bake bread.")
    answer = generate(smollm2, prompt, max_new_tokens=1500, min_new_tokens=1500).tokens[0]
    assert len(answer) == 1500
    logits = teacher_forced(smollm2, prompt, answer)
    logits[:, list(smollm2.eos_token_ids)] = -math.inf  # as `min_new_tokens` does
    chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
    assert float((logits.amax(1) - chosen).max()) < 1e-3


def test_a_prompt_of_2000_tokens(smollm2):
    ids = smollm2.tokenizer((TEXT + " ") * 120, add_special_tokens=False).input_ids[:2000]
    prompt = TokenSequence.of(ids, role=Role.USER)
    assert_greedy(smollm2, prompt, generate(smollm2, prompt, max_new_tokens=8).tokens[0])


def test_a_dialog_of_20_turns(smollm2):
    """Every answer of a dialog that grows beyond 500 tokens is the one of a plain pass over all of it."""
    turns: list[str] = []
    for number in range(20):
        turns.append(f"Tell me one thing about {SUBJECTS[number % 10]}, number {number}.")
        prompt = asked(smollm2, *turns)
        found = generate(smollm2, prompt, max_new_tokens=12)
        assert_greedy(smollm2, prompt, found.tokens[0])
        turns.append(found.text[0].strip() or "Yes.")
    assert len(prompt) > 500


@pytest.mark.parametrize(("dtype", "inference"), [("float32", False), ("bfloat16", True)])
def test_every_check_passes(smollm2_folder, dtype, inference):
    """In float32 with gradients; in bfloat16 within the wider bounds of docs/check.md."""
    report = check_backbone(
        load_backbone(smollm2_folder, inference_mode=inference, weights=inference, dtype=dtype, builder="chatml")
    )
    assert report.failed == ()
    said = {result.name: result.said for result in report.results}
    assert "`model.layers.11`, 37% of float16's largest number" in said["half-precision"]
    assert "SmolLM, trained by Hugging Face" in said["chat-template"]
    assert "49152 tokens, 49152 rows of the embedding, 49152 of the head" in said["rows"]
