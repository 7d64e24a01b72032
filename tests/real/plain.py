"""The slow way beside which answers are held: one pass over prompt and answer, in which every token must be the likeliest."""

from __future__ import annotations

from collections.abc import Collection

import torch

from vertebra import TokenSequence, render
from vertebra.checks.precision import computing_in

ROUNDING = 1e-3
"""Two logits closer than this may change places in float32: a pass of many columns adds in another order than a step.
The largest logits are about 35, and float32 differs by 2e-6 of that; long answers by more."""


def asked(backbone, *turns: str) -> TokenSequence:
    """A dialog whose turns alternate, open for the next answer."""
    roles = ("user", "assistant")
    conversation = [{"role": roles[number % 2], "content": text} for number, text in enumerate(turns)]
    return render(conversation, backbone.prompt_builder_fn, backbone.tokenizer, anchor=backbone.anchor)


def teacher_forced(backbone, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """[N, V]: what one plain pass over prompt and answer says at each answered position."""
    ids = torch.tensor([[*prompt, *answer]])
    with torch.inference_mode():
        logits = backbone(
            input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=len(answer) + 1, use_cache=False
        ).logits[0]
    return logits[:-1].clone()  # one that may be written to


def assert_greedy(backbone, prompt: list[int], answer: list[int], *, never: Collection[int] = ()) -> None:
    """Every token is the likeliest by the plain pass, but for what rounding may turn round."""
    logits = teacher_forced(backbone, prompt, answer)
    logits[:, list(never)] = -torch.inf
    chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
    assert float((logits.amax(1) - chosen).max()) < ROUNDING


def assert_tie(backbone, prompt: list[int], ours: list[int], theirs: list[int]) -> float:
    """Where two answers part, float64 finds both tokens equally likely, and none likelier; the difference of the two."""
    at = next(n for n in range(max(len(ours), len(theirs))) if ours[n : n + 1] != theirs[n : n + 1])
    with computing_in(backbone.llm, torch.float64):
        logits = teacher_forced(backbone, prompt, [*ours[:at], ours[at]])[-1]
    assert logits.dtype == torch.float64
    a, b = float(logits[ours[at]]), float(logits[theirs[at]])
    assert float(logits.max()) == max(a, b)
    assert abs(a - b) < ROUNDING
    return abs(a - b)
