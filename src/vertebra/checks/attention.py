"""One sequence must have the same logits however it is run: cached, padded, in a batch, packed, from embeddings.

Each check has one way of running that no other check uses: a cache; padding, and one row; several rows, and no mask;
several documents in one row; embeddings. So a fault in one of them turns one check red.
"""

from __future__ import annotations

from typing import Any

import torch

from vertebra.checks.results import Measure, Skip
from vertebra.checks.subject import Subject, difference
from vertebra.sequence.batch import Batch, collate
from vertebra.sequence.masks import plan_attention
from vertebra.sequence.tokens import TokenSequence


def cached(subject: Subject) -> Measure:
    """Prefill, then single steps and a chunk, beside one pass without a cache."""
    return _cached(subject, [subject.inside], "")


def cached_beyond(subject: Subject) -> Measure | Skip:
    """The same where steps cross the window's edge, and where the prefill has crossed it already."""
    return _beyond(subject, lambda window, where: _cached(subject, [window + 6, 2 * window + 5], where))


def left_padded(subject: Subject) -> Measure:
    """One row with padding before it, as a plan runs it and as a plain call with a 2-D mask does."""
    return _left_padded(subject, subject.inside, "")


def left_padded_beyond(subject: Subject) -> Measure | Skip:
    return _beyond(subject, lambda window, where: _left_padded(subject, 2 * window + 3, where))


def batched(subject: Subject) -> Measure:
    """Three rows of different lengths at once, beside each alone."""
    longest = subject.inside
    return _batched(subject, [longest, max(1, longest - 2), max(1, longest // 2)], "")


def batched_beyond(subject: Subject) -> Measure | Skip:
    return _beyond(subject, lambda window, where: _batched(subject, [2 * window + 3, window + 2, 5], where))


def packed(subject: Subject) -> Measure | Skip:
    """Three documents in one row, beside each alone."""
    longest = subject.inside
    return _packed(subject, [longest, max(1, longest - 3), max(1, longest // 2)], "")


def packed_beyond(subject: Subject) -> Measure | Skip:
    return _beyond(subject, lambda window, where: _packed(subject, [window + 5, 2 * window + 3, 4], where))


def from_embeddings(subject: Subject) -> Measure:
    """`forward(inputs_embeds=embed_input_ids(ids))` beside `forward(input_ids=ids)`."""
    backbone, ids = subject.backbone, subject.ids(subject.inside)
    with torch.no_grad():
        embeds = backbone.embed_input_ids(ids)
    worst = difference(_logits(backbone, inputs_embeds=embeds), _logits(backbone, input_ids=ids))
    return _measure(subject, worst, f"{ids.shape[1]} positions")


def _beyond(subject: Subject, measure: Any) -> Measure | Skip:
    own = subject.window
    if own is None:
        return Skip("the model has no sliding window")
    with subject.narrow_window() as window:
        if 3 * window + 12 > subject.limit:
            return Skip(f"a window of {window} is hardly left in {subject.limit} positions")
        where = f" beyond a window of {window}" + ("" if window == own else f" (narrowed from {own})")
        return measure(window, where)


def _measure(subject: Subject, worst: float, message: str) -> Measure:
    return Measure(number=worst, relation="<=", bound=subject.tolerance, message=message)


@torch.no_grad()
def _logits(backbone: Any, **inputs: Any) -> torch.Tensor:
    return backbone.eval()(**inputs).logits


def _alone(subject: Subject, sequence: TokenSequence) -> torch.Tensor:
    """[L, V] the plainest run: one row, no mask, no cache."""
    ids = torch.as_tensor(sequence.ids, device=subject.backbone.device)[None]
    return _logits(subject.backbone, input_ids=ids, use_cache=False)[0]


def _planned(subject: Subject, batch: Batch) -> torch.Tensor:
    """[B, L, V] the batch as its plan says."""
    backbone = subject.backbone
    made = plan_attention(batch.to(backbone.device), backbone.attention_facts, dtype=backbone.dtype)
    return _logits(
        backbone,
        input_ids=batch["input_ids"].to(backbone.device),
        attention_mask=made.attention_mask,
        position_ids=made.position_ids,
        use_cache=made.use_cache,
    )


def _cached(subject: Subject, lengths: list[int], beyond: str) -> Measure:
    worst = 0.0
    for seed, length in enumerate(lengths):
        # the last one prefills all but six positions, so that beyond a window it starts with a cache that is full
        prefill = max(1, length // 2 if seed < len(lengths) - 1 else length - 6)
        worst = max(worst, _cached_difference(subject, subject.ids(length, seed), prefill))
    return _measure(subject, worst, f"{_listed(lengths)} positions, step by step{beyond}")


def _cached_difference(subject: Subject, ids: torch.Tensor, prefill: int) -> float:
    """Chunks of `prefill`, 1, 1, 2, 1, 1 … positions, their logits joined."""
    backbone = subject.backbone
    expected = _logits(backbone, input_ids=ids, use_cache=False)
    sizes = [prefill, 1, 1, 2] + [1] * ids.shape[1]
    past, pieces, at = None, [], 0
    with torch.no_grad():
        for size in sizes:
            chunk = ids[:, at : at + size]
            if not chunk.shape[1]:
                break
            out = backbone.eval()(input_ids=chunk, past_key_values=past, use_cache=True)
            past = out.past_key_values
            pieces.append(out.logits)
            at += size
    return difference(torch.cat(pieces, 1), expected)


def _left_padded(subject: Subject, length: int, beyond: str) -> Measure:
    backbone, sequence = subject.backbone, subject.sequence(length)
    expected = _alone(subject, sequence)
    batch = collate([sequence], pad_id=backbone.pad_token_id, side="left", multiple_of=length + 5)
    mask = batch["attention_mask"].to(backbone.device)
    ids = batch["input_ids"].to(backbone.device)
    runs = (_planned(subject, batch), _logits(backbone, input_ids=ids, attention_mask=mask, use_cache=False))
    worst = max(difference(run[0, -length:], expected) for run in runs)
    return _measure(subject, worst, f"{length} positions behind 5 of padding{beyond}")


def _batched(subject: Subject, lengths: list[int], beyond: str) -> Measure:
    sequences = [subject.sequence(length, seed) for seed, length in enumerate(lengths)]
    together = _planned(subject, collate(sequences, pad_id=subject.backbone.pad_token_id))
    worst = max(
        difference(row[: len(sequence)], _alone(subject, sequence))
        for row, sequence in zip(together, sequences, strict=True)
    )
    return _measure(subject, worst, f"rows of {_listed(lengths)}{beyond}")


def _packed(subject: Subject, lengths: list[int], beyond: str) -> Measure | Skip:
    if sum(lengths) > subject.limit:
        return Skip(f"{sum(lengths)} positions do not fit into {subject.limit}")
    sequences = [subject.sequence(length, seed) for seed, length in enumerate(lengths)]
    row = TokenSequence.join(sequences, new_documents=True)
    together = _planned(subject, collate([row], pad_id=subject.backbone.pad_token_id))[0]
    worst = max(
        difference(part, _alone(subject, sequence))
        for part, sequence in zip(together.split(lengths), sequences, strict=True)
    )
    return _measure(subject, worst, f"documents of {_listed(lengths)} in one row{beyond}")


def _listed(numbers: list[int]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, numbers[:-1])), str(numbers[-1])]))
