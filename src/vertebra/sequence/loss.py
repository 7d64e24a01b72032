"""The loss: reads targets and weights, shifts once, and never crosses from one document into the next.

Targets are aligned with ids, so what stands at index i is predicted by the logits at i - 1 (`shift=True`) or at i
(masked language models). The first position of a document or a branch has no such predecessor and is never counted, nor
is padding.
`Supervised` names the positions whose logits are needed at all, so that a head can be run on those alone. Slots whose
answers are numbers (`VALUE_TARGET`) count as tokens do, and a head of the model makes their loss. Knows no models.

    targets     <s>  In   :  left </s> │ <s>  Go  </s>          weights   0 0 0 1 1 │ 1 1 1
    predicted        ▲────▲────▲────▲       ▲────▲              counted         1 1 │   1 1    (│ a new document)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from vertebra.errors import SequenceError
from vertebra.sequence.batch import Batch
from vertebra.sequence.roles import VALUE_TARGET


@dataclass(frozen=True, kw_only=True, eq=False)
class Supervised:
    """The positions that count: N of them, in row order."""

    rows: torch.Tensor
    """[N] the row of each."""
    columns: torch.Tensor
    """[N] the index whose hidden state predicts the target (one before the target's own, where shifted)."""
    targets: torch.Tensor
    """[N] what must be predicted."""
    weights: torch.Tensor
    """[N] how much it counts; above 0."""
    highest: int
    """The largest target, to hold against the head before a kernel does."""

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, hidden: torch.Tensor) -> torch.Tensor:
        """[B, L, …] -> [N, …]: hidden states (or logits) at the positions that predict."""
        return hidden[self.rows, self.columns]

    def loss(
        self,
        logits: torch.Tensor,
        *,
        num_items: torch.Tensor | float | None = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ) -> torch.Tensor:
        """The loss of logits [N, V] that were made at these positions alone."""
        self._check(logits)
        losses = token_losses(logits, self.targets, label_smoothing=label_smoothing, z_loss=z_loss)
        return _reduced(losses, self.weights, num_items)

    def _check(self, logits: torch.Tensor) -> None:
        if logits.ndim != 2 or len(logits) != len(self):
            raise SequenceError(
                f"logits of shape {tuple(logits.shape)} for {len(self)} supervised positions; expected "
                f"[{len(self)}, V], made from `supervised.select(hidden)`"
            )
        if self.highest >= logits.shape[1]:
            raise SequenceError(
                f"target {self.highest} is no row of the head, which has {logits.shape[1]}; the vocabulary grew, or "
                "the ids come from another tokenizer"
            )


def supervised_positions(batch: Batch, *, shift: bool = True) -> Supervised:
    """Which positions of a batch count. The only ones whose logits a training step needs."""
    return _supervised(batch["targets"], batch["weights"], batch["document"], batch["block"], shift=shift)


def count_items(batch: Batch, *, shift: bool = True) -> torch.Tensor:
    """The sum of the weights that count: what `num_items` is made of, over all micro-batches and ranks."""
    return (
        _counted(batch["targets"], batch["weights"], batch["document"], batch["block"], shift=shift).sum()
        + value_weights(batch).sum()
    )


def value_weights(batch: Batch) -> torch.Tensor:
    """[B, L]: how much each slot counts whose answer is a number (`VALUE_TARGET`); 0 everywhere else."""
    return torch.where((batch["targets"] == VALUE_TARGET) & (batch["document"] >= 0), batch["weights"], 0)


def sequence_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    document: torch.Tensor | None = None,
    block: torch.Tensor | None = None,
    shift: bool = True,
    num_items: torch.Tensor | float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> torch.Tensor:
    """The weighted cross entropy of logits [B, L, V] on targets and weights [B, L], in fp32.

    Divided by `num_items` where given (the weight of a whole accumulated, all-ranks batch), else by the weights that
    count here. `document` [B, L] keeps packed samples apart and padding out: without it each row is taken for one
    document that begins at index 0. `block` [B, L] does the same for branches. `z_loss` adds that times the
    square of the log of the softmax's denominator.

    Nothing supervised is an error, unless `num_items` counts other micro-batches: then it is 0.
    """
    if logits.shape[:-1] != targets.shape or weights.shape != targets.shape or targets.ndim != 2:
        raise SequenceError(
            f"logits of shape {tuple(logits.shape)}, targets {tuple(targets.shape)}, weights {tuple(weights.shape)}; "
            "expected [B, L, V], [B, L] and [B, L]"
        )
    at = _supervised(targets, weights, document, block, shift=shift)
    # Picked out before anything is computed: a NaN where nothing is supervised reaches neither loss nor gradient.
    return at.loss(at.select(logits), num_items=num_items, label_smoothing=label_smoothing, z_loss=z_loss)


def token_losses(
    logits: torch.Tensor, targets: torch.Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> torch.Tensor:
    """Each position's own loss [N], unweighted, in fp32 (fp64 stays)."""
    if not 0 <= label_smoothing < 1:
        raise SequenceError(f"label_smoothing is {label_smoothing}; expected at least 0 and less than 1")
    if z_loss < 0:
        raise SequenceError(f"z_loss is {z_loss}; expected 0 or more")
    wide = logits if logits.dtype == torch.float64 else logits.float()
    losses = F.cross_entropy(wide, targets, reduction="none", label_smoothing=label_smoothing)
    if z_loss:
        losses = losses + z_loss * wide.logsumexp(-1).square()
    return losses


def _counted(
    targets: torch.Tensor,
    weights: torch.Tensor,
    document: torch.Tensor | None,
    block: torch.Tensor | None,
    *,
    shift: bool,
) -> torch.Tensor:
    """Weights [B, L], with 0 wherever nothing can be predicted."""
    counted = torch.where(targets >= 0, weights, 0)
    if document is not None:
        counted = torch.where(document >= 0, counted, 0)
    if not shift:
        return counted
    predicted = torch.ones_like(targets, dtype=torch.bool)
    predicted[:, :1] = False
    if document is not None:
        predicted[:, 1:] = document[:, 1:] == document[:, :-1]
    if block is not None:  # what stands before a branch is another branch, or what all of them share
        predicted[:, 1:] &= (block[:, 1:] >= 0) | (block[:, 1:] == block[:, :-1])
    return torch.where(predicted, counted, 0)


def _supervised(
    targets: torch.Tensor,
    weights: torch.Tensor,
    document: torch.Tensor | None,
    block: torch.Tensor | None,
    *,
    shift: bool,
) -> Supervised:
    counted = _counted(targets, weights, document, block, shift=shift)
    rows, columns = (counted > 0).nonzero(as_tuple=True)
    chosen = targets[rows, columns]
    return Supervised(
        rows=rows,
        columns=columns - int(shift),
        targets=chosen,
        weights=counted[rows, columns].float(),
        highest=int(chosen.max()) if len(chosen) else -1,
    )


def _reduced(losses: torch.Tensor, weights: torch.Tensor, num_items: torch.Tensor | float | None) -> torch.Tensor:
    if num_items is None:
        if not len(losses):
            raise SequenceError(
                "no supervised position in this batch: every weight is 0, or stands on a document's first position, "
                "which nothing predicts. Check that answers are supervised (`weight`) and were not cut away."
            )
        # Weights may be tiny (1e-30): scaled by the largest, neither sum falls to 0.
        share = weights / weights.max()
        return (losses * share).sum() / share.sum()
    # On an accelerator reading the number would wait for the whole forward; it can only be 0 where nothing is here.
    at_hand = not isinstance(num_items, torch.Tensor) or num_items.device.type == "cpu"
    if (at_hand or not len(losses)) and float(num_items) <= 0:
        raise SequenceError(f"num_items is {float(num_items)}: no supervised position in the whole accumulated batch")
    return (losses * weights).sum() / num_items
