"""Which columns parallel decoding fills, where their logits are read, and what comes out. Data about batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from vertebra.decode.state.decoding import Pass
from vertebra.errors import GenerationError, UnknownNameError
from vertebra.sequence.batch import Batch
from vertebra.sequence.length import listed


@dataclass(frozen=True, kw_only=True, eq=False)
class FilledSlots:
    """All slots of all rows, filled. n: the slots of the row that has most."""

    tokens: list[list[int]]
    """The ids of each row's slots, in order."""
    log_probs: list[list[float]]
    """How sure the model was of each, among the ids that were allowed."""
    logits: torch.Tensor
    """[B, n, V] in fp32, or the columns of `ids` alone."""
    ids: torch.Tensor | None
    """The ids behind the columns of the logits; None: all, in order."""
    hidden: torch.Tensor
    """[B, n, D] the states that were read, for a head of one's own (a regression)."""
    real: torch.Tensor
    """[B, n] which of the n a row has; the others hold its last one again."""
    passes: tuple[Pass, ...]
    seeds: tuple[int, ...] | None = None
    failed: list[int] = field(default_factory=list)
    """Rows with logits that were no numbers."""
    tokenizer: Any = None

    @cached_property
    def text(self) -> list[str]:
        """The slots of each row as text."""
        return [self.tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in self.tokens]

    def __str__(self) -> str:
        return "\n".join(self.text)


See = Literal["given", "block", "row", "causal"]
SEES: tuple[See, ...] = ("given", "block", "row", "causal")
"""Who sees whom among slots."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Slots:
    """The places of a batch that are filled."""

    here: torch.Tensor
    """[B, L] the slots."""
    columns: torch.Tensor
    """[B, n] the columns whose logits say what stands in them; a row with fewer repeats its last."""
    real: torch.Tensor
    """[B, n] which of these a row has; on the CPU."""


def slots_at(batch: Batch, at: Any, read: str) -> Slots:
    """The slots of a segment, of a mask, or where an id stands."""
    here = _here(batch, at) & batch["attention_mask"].bool()
    counts = here.sum(1).cpu()
    if int(counts.max()) == 0:
        raise GenerationError(f"no row has a place to fill: nothing is at {_named(at)}")
    if int(counts.min()) == 0:
        empty = [str(row) for row in (counts == 0).nonzero()[:, 0].tolist()]
        raise GenerationError(f"rows {listed(empty)} have no place to fill at {_named(at)}; leave them out")
    most = int(counts.max())
    order = torch.arange(batch.length, device=batch.device)
    first = torch.where(here, order, batch.length).sort(1).values[:, :most]
    last = torch.where(here, order, -1).amax(1, keepdim=True)
    columns = torch.minimum(first, last)
    real = torch.arange(most) < counts[:, None]
    if read == "before":
        columns = columns - 1
        _check_before(batch, columns)
    return Slots(here=here, columns=columns, real=real)


def _here(batch: Batch, at: Any) -> torch.Tensor:
    if isinstance(at, str):
        if at not in batch["segments"]:
            raise UnknownNameError("segment", at, batch["segments"], hint="The batch has no slots of it.")
        return batch["slot"][..., 0] == batch["segments"].index(at)
    if isinstance(at, int) and not isinstance(at, bool):
        return batch["input_ids"] == at
    if isinstance(at, torch.Tensor) and at.dtype == torch.bool and at.shape == batch["input_ids"].shape:
        return at.to(batch.device)
    came = f"{at.dtype} tensor of shape {tuple(at.shape)}" if isinstance(at, torch.Tensor) else repr(at)
    raise GenerationError(
        f"`at` is {came}; expected the name of a segment, an id, or a boolean mask of shape {tuple(batch['input_ids'].shape)}"
    )


def _named(at: Any) -> str:
    return "the places of the mask" if isinstance(at, torch.Tensor) else f"`{at}`"


def _check_before(batch: Batch, columns: torch.Tensor) -> None:
    """What is read one before a slot must be there, and of the same document."""
    document = batch["document"]
    before = columns.clamp(min=0)
    wrong = (columns < 0) | (document.gather(1, before) != document.gather(1, columns + 1))
    if bool(wrong.any()):
        rows = sorted({str(row) for row in wrong.nonzero()[:, 0].tolist()})
        raise GenerationError(
            f"rows {listed(rows)} begin with a slot, and a causal model reads what stands there one before it; put a "
            'token first, or use read="here"'
        )


def seen_as(batch: Batch, here: torch.Tensor, see: str, *, above: int = 0) -> Batch:
    """The batch with blocks that say who sees whom; `here` [B, L] are the slots."""
    if see == "given":
        return batch
    block = batch["block"]
    if see == "row":
        block = batch["attention_mask"].to(block.dtype)
    elif see == "causal":
        block = block.masked_fill(here, 0)
    else:
        block = block.masked_fill(here, max(int(block.max()), above) + 1)
    return Batch({**batch, "block": block})
