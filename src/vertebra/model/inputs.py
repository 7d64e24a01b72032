"""What `forward` was given, as a whole batch: missing keys filled in where their meaning is plain, others refused.

A batch from `collate` passes through unchanged. Knows no models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vertebra.errors import SequenceError, UnknownNameError
from vertebra.sequence.batch import KEYS, Batch
from vertebra.sequence.roles import NO_TARGET, Role

_SUPERVISION = ("targets", "weights")


def whole_batch(given: Mapping[str, Any]) -> Batch:
    """A batch with every key. `input_ids` alone is one document a row, all real, unsupervised, without slots."""
    unknown = [key for key in given if key not in KEYS]
    if unknown:
        raise UnknownNameError("batch key", unknown[0], KEYS, hint=_hint(unknown[0]))
    if not isinstance(given.get("input_ids"), torch.Tensor) or given["input_ids"].ndim != 2:
        raise SequenceError("a batch needs `input_ids` of shape [rows, positions]; make one with `collate(sequences)`")
    if len(given) == len(KEYS):
        return given if isinstance(given, Batch) else Batch(given)
    if sum(key in given for key in _SUPERVISION) == 1:
        raise SequenceError(
            "`targets` and `weights` come together: what a position must predict, and how much it counts"
        )
    batch = Batch(given)
    ids = batch["input_ids"]
    for key, value in (("attention_mask", 1), ("role", int(Role.TEXT)), ("type", 0), ("block", 0)):
        batch.setdefault(key, torch.full_like(ids, value))
    real = batch["attention_mask"].bool()
    batch.setdefault("document", torch.where(real, 0, -1))
    batch.setdefault("position_ids", (real.long().cumsum(1) - 1).clamp(min=0))
    batch.setdefault("targets", torch.full_like(ids, NO_TARGET))
    batch.setdefault("weights", torch.zeros(ids.shape, device=ids.device))
    batch.setdefault("slot", torch.full((*ids.shape, 2), -1, dtype=torch.long, device=ids.device))
    batch.setdefault("segments", ())
    batch.setdefault("features", {})
    return batch


def _hint(key: str) -> str:
    if key == "labels":
        return "Give `targets` (aligned with the ids; the loss shifts once) and `weights` (0: not supervised)."
    if key in ("pixel_values", "bbox"):
        return "Raw items go into `features`, by the name of their segment."
    return ""


def has_slots(batch: Batch, start: int, stop: int | None) -> bool:
    """Whether outside embeddings stand in these columns."""
    return bool(batch["segments"]) and bool((batch["slot"][:, start:stop, 0] >= 0).any())


def cached_positions(past: Any, batch: Batch) -> int:
    """How many positions the cache holds; the batch must hold those and at least one more."""
    start = 0 if past is None else int(past.get_seq_length())
    if start >= batch.length:
        raise SequenceError(
            f"the cache holds {start} positions and the batch {batch.length}; the batch holds the cached ones and at "
            "least one new one (`batch.append(ids)`)"
        )
    return start
