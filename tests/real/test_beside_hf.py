"""Two hundred prompts of many lengths, greedy: token for token what Hugging Face's `generate` says."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.real.plain import asked, assert_tie
from vertebra import collate, generate

SUBJECTS = [
    "robots", "rivers", "bread", "the moon", "bicycles", "old maps", "bees", "glass", "winter", "copper", "trains",
    "paper", "volcanoes", "cats", "lighthouses", "salt", "clocks", "rain", "violins", "deserts",
]  # fmt: skip
TASKS = [
    "Explain {} in one sentence.",
    "Write a short poem about {}.",
    "Name three facts about {}.",
    "Why do people like {}?",
    "Translate into French: I dream of {}.",
    "Is there a connection between {} and the number 1,987? Answer yes or no, and give the reason in the same breath.",
    "def {}(x):\n    # finish this function\n",
    "{}?",
    "A child asks you about {}. She is six years old, likes stories with animals in them, is afraid of the dark, and has "
    "to go to bed in five minutes. What do you tell her?",
    'Answer in JSON with the fields "name" and "kind": {}',
]
ROWS, NEW = 40, 20


@pytest.mark.long
def test_greedy_tokens_are_those_of_hugging_face(smollm2, smollm2_folder):
    """In ragged batches, some rows ending early. Where the two part, both tokens are equally likely."""
    prompts = [asked(smollm2, task.format(subject)) for subject in SUBJECTS for task in TASKS]
    stock = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32).eval()
    ties = []
    for first in range(0, len(prompts), ROWS):
        some = prompts[first : first + ROWS]
        assert len({len(prompt) for prompt in some}) > 5
        ours = generate(smollm2, some, max_new_tokens=NEW).tokens
        for prompt, mine, other in zip(some, ours, _by_hugging_face(smollm2, stock, some), strict=True):
            if mine != other:
                ties.append(assert_tie(smollm2, prompt.ids.tolist(), mine, other))
    assert len(prompts) == 200
    assert len(ties) <= 2, ties


def _by_hugging_face(smollm2, stock, prompts) -> list[list[int]]:
    """The answers, each up to its end."""
    batch = collate(prompts, pad_id=smollm2.pad_token_id, side="left")
    with torch.inference_mode():
        whole = stock.generate(
            batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=NEW, do_sample=False,
            pad_token_id=smollm2.pad_token_id,
        )  # fmt: skip
    answers = []
    for row in whole[:, batch.length :].tolist():
        end = next((n + 1 for n, token in enumerate(row) if token in smollm2.eos_token_ids), len(row))
        assert set(row[end:]) <= {smollm2.pad_token_id}
        answers.append(row[:end])
    return answers
