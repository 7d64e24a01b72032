"""What the heads of a model must learn from one batch: found before the pass, made into a loss after it.

    answering = Answering.of(model.heads, batch, model.backbone)    # None: nothing of it is a head's
    … one pass, with `answering.cache` in it where a head reads keys …
    answering.loss(hidden)                                          # summed by weight, as tokens are

A slot is a head's where its target is `VALUE_TARGET`; how much it counts stands in the batch's weights, its value in
`features`. It does not know how a pass is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vertebra.backbone.kept import keeping, kept
from vertebra.errors import InjectionError, SequenceError
from vertebra.model.heads.interface import ActionHead, ChunkPlaces, SeenByHeads, chunks_of
from vertebra.sequence.batch import Batch
from vertebra.sequence.length import listed
from vertebra.sequence.loss import Supervised, value_weights


class Answering:
    """The chunks of a batch that heads learn, by segment."""

    def __init__(
        self, batch: Batch, taken: Mapping[str, tuple[ActionHead, ChunkPlaces, torch.Tensor]], backbone: Any
    ) -> None:
        self.batch, self._taken = batch, dict(taken)
        self._weights = value_weights(batch)
        reads_keys = any(head.reads == "keys" for head, _, _ in self._taken.values())
        self.cache: Any = keeping(backbone.llm) if reads_keys else None
        """What the pass has to be given as its cache, so that each layer's keys are kept."""

    @classmethod
    def of(cls, heads: Mapping[str, Any], batch: Batch, backbone: Any) -> Answering | None:
        """Of a batch whose supervised slots of numbers each have a head and a value, or one error that lists what lacks."""
        weights = value_weights(batch) > 0
        if not bool(weights.any()):
            return None
        segment = torch.where(weights, batch["slot"][..., 0], -2)
        names = {n: batch["segments"][n] if n >= 0 else None for n in segment.unique().tolist() if n > -2}
        _require_heads(heads, batch, segment, names)
        taken = {}
        for name in names.values():
            assert name is not None, "refused above"
            head: ActionHead = heads[name]
            block = batch["features"].get(name)
            if block is None:
                raise InjectionError(
                    f"slots of `{name}` are to be learned, and the batch brings no value for them: give `features` to "
                    f"`collate`, {{'{name}': [chunks, {head.chunk}, {head.dims}]}} for each row"
                )
            head.check(block["values"], name)
            at = chunks_of(batch, name, head.slots)
            if not torch.equal(at.rows, block["rows"]):
                rows = (at.rows[:, None] == torch.arange(batch.rows, device=batch.device)).sum(0)
                items = torch.bincount(block["rows"], minlength=batch.rows)
                faults = [
                    f"row {r} has {items[r]} chunks for {rows[r]}" for r in range(batch.rows) if rows[r] != items[r]
                ]
                raise InjectionError(f"values of `{name}` do not fit their slots: {listed(faults)}")
            taken[name] = head, at, block["values"]
        return cls(batch, taken, backbone)

    @property
    def modules(self) -> list[ActionHead]:
        """The heads that learn from this batch."""
        return [head for head, _, _ in self._taken.values()]

    @property
    def weight(self) -> torch.Tensor:
        """The weight of all numbers."""
        return self._weights.sum()

    def loss(self, hidden: torch.Tensor | None) -> torch.Tensor:
        """The losses of all heads, summed by weight. `hidden` [B, L, D]: as they enter the language model's head."""
        seen = SeenByHeads(batch=self.batch, hidden=hidden, keys=None if self.cache is None else kept(self.cache))
        losses = [head.loss(seen, at, values, at.at(self._weights)) for head, at, values in self._taken.values()]
        return torch.stack(losses).sum()


def loss_of(
    at: Supervised,
    logits: torch.Tensor,
    answering: Answering | None,
    entered: Sequence[torch.Tensor] | None,
    *,
    num_items: int | torch.Tensor | None,
) -> torch.Tensor:
    """Of tokens and of numbers together, divided by the weight of both. `entered`: what entered the model's own head."""
    if answering is None or entered is None:
        return at.loss(logits, num_items=num_items)
    items = answering.weight + at.weights.sum() if num_items is None else num_items
    loss = answering.loss(entered[0]) / items
    return loss + at.loss(logits, num_items=items) if len(at) else loss


def _require_heads(
    heads: Mapping[str, Any], batch: Batch, segment: torch.Tensor, names: Mapping[int, str | None]
) -> None:
    """A number that no head learns would be counted, and teach nothing."""
    faults = []
    for number, name in names.items():
        if name is None or name not in heads:
            rows = (segment == number).any(1).nonzero()[:, 0].tolist()
            faults.append(f"row {rows[0]}: {'a position that is no slot' if name is None else f'slots of `{name}`'}")
    if faults:
        known = ", ".join(f"`{name}`" for name in heads) or "none"
        raise SequenceError(
            f"targets are numbers (VALUE_TARGET) where no head of the model learns them: {listed(faults)}. Heads: {known}"
        )


def without_answers(batch: Batch, heads: Mapping[str, Any]) -> Batch:
    """The batch as encoders are given it: what heads learn is no input."""
    features = batch["features"]
    if not any(name in heads for name in features):
        return batch
    return Batch({**batch, "features": {name: block for name, block in features.items() if name not in heads}})
