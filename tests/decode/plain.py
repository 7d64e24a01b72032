"""The slow truth: one row at a time, no padding, no mask, no cache, the model called as anybody would call it."""

from __future__ import annotations

from functools import cache

import torch

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import TINY
from vertebra.sequence.tokens import TokenSequence

WINDOW = 8
# Families whose windows are off in the tiny checkpoints: once more, with a window on half of the layers.
MIXED = {
    "tiny-qwen2+window": {"layer_types": ["full_attention", "sliding_attention"]},
    "tiny-qwen3+window": {"layer_types": ["sliding_attention", "full_attention"]},
    "tiny-smollm3+window": {"layer_types": ["full_attention", "sliding_attention"] * 2},
}
FAMILIES = [*TINY, *MIXED]
WINDOWED = ["tiny-mistral", "tiny-phi3", "tiny-gemma2", "tiny-gemma3", *MIXED]


@cache
def backbone(name: str):
    """One load a family, in fp32."""
    return load(name, "float32")


def load(name: str, dtype: str):
    """One that nobody else holds."""
    overrides = {"use_sliding_window": True, "sliding_window": WINDOW, **MIXED[name]} if name in MIXED else None
    return load_backbone(
        name.partition("+")[0], inference_mode=True, weights=True, dtype=dtype, config_overrides=overrides
    )


def prompts(name: str, lengths=(12, 5, 17), seed: int = 0) -> list[TokenSequence]:
    """Random text, other ids in every family."""
    vocabulary = len(backbone(name).tokenizer)
    generator = torch.Generator().manual_seed(seed)
    return [TokenSequence.of(torch.randint(5, vocabulary, (n,), generator=generator).numpy()) for n in lengths]


@torch.no_grad()
def plain_logits(name: str, ids: list[int]) -> torch.Tensor:
    """[V] after the last of these ids."""
    return backbone(name).llm(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]


def plain_greedy(name: str, prompt: TokenSequence, count: int) -> list[int]:
    """The next ids of one row."""
    ids = prompt.ids.tolist()
    for _ in range(count):
        ids.append(int(plain_logits(name, ids).argmax()))
    return ids[len(prompt) :]


def plain_rows(name: str, sequences, count: int) -> list[list[int]]:
    return [plain_greedy(name, sequence, count) for sequence in sequences]


def plain_drawn(
    name: str, prompt: TokenSequence, count: int, *, seed: int, temperature: float, top_k: int
) -> list[int]:
    """Sampling as it is defined: the id at which the running sum of probabilities passes the row's next number."""
    numbers = torch.rand(count, generator=torch.Generator().manual_seed(seed)).double()
    ids = prompt.ids.tolist()
    for number in numbers:
        scores = plain_logits(name, ids) / temperature
        worst = scores.sort(descending=True).values[top_k - 1]
        weights = [float(w) if s >= worst else 0.0 for w, s in zip(scores.double().exp(), scores, strict=True)]
        total, running = sum(weights), 0.0
        for token, weight in enumerate(weights):
            running += weight / total
            if running > float(number):
                ids.append(token)
                break
    return ids[len(prompt) :]
