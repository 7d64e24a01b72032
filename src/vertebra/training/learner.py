"""`Learner`: a model together with its loss, as the one module that the trainer, DDP and FSDP see.

    batch ──► model, its head held back ──► hidden states at supervised positions ──► head and loss in one
                                       └──► those of action slots (or the keys of all layers) ──► action heads

The loss is divided by the weight of the whole accumulated batch over all ranks, so that 1 × 8, 8 × 1 and 2 ranks × 4
are the same step. Where a family does something to its logits that is not known here, the model's own head is run on
the supervised positions instead; which of the two holds is found by a probe, never assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vertebra import log
from vertebra.backbone.head import Head, entering_head, head_held_back, head_of
from vertebra.backbone.head_loss import LossRule, head_loss
from vertebra.errors import ConfigError, SequenceError
from vertebra.model.encoding import serving
from vertebra.model.heads.answering import Answering
from vertebra.sequence.batch import KEYS, Batch
from vertebra.sequence.loss import Supervised, supervised_positions
from vertebra.training.cached.layers import SEGMENT as LOWER
from vertebra.training.cached.layers import UpperLayers
from vertebra.training.own_loss import LossFunction, loss_by, require_signature
from vertebra.training.scale.start import Late


class Learner(nn.Module):
    """What is trained: the model, and how its loss is made."""

    accepts_loss_kwargs = True  # the Trainer then hands `num_items_in_batch` to `forward`

    def __init__(
        self,
        model: Any,
        *,
        rule: LossRule | None = None,
        fused: bool = True,
        shift: bool = True,
        function: LossFunction | None = None,
        upper: UpperLayers | None = None,
        late: Late | None = None,
    ) -> None:
        super().__init__()
        if function is not None:
            require_signature(function)
        self.model = model
        self.rule, self.shift, self.function = rule or LossRule(), shift, function
        self.upper = upper
        """What runs batches that bring the hidden states of frozen lower layers; no module, for it shares the model's."""
        self.late = late
        """What of the model is not there yet."""
        self.to_show = late is not None
        """Whether `head` is yet to be shown on the model, which can only run inside a forward of this."""
        self.head = fused_head(model, waiting=self.to_show) if fused and function is None else None

    @property
    def lm(self) -> Any:
        """The Hugging Face model inside."""
        return self.model.lm

    def forward(
        self, *, num_items_in_batch: Any = None, call: Callable[[nn.Module], Any] | None = None, **batch: Any
    ) -> Any:
        """`loss`, divided by `num_items_in_batch` where given, else by the weight that counts here.

        `call`: do this with the model instead, inside a forward: where shards are gathered, and all ranks together.
        """
        if self.to_show:
            self.to_show, shown = False, fused_head(self.model, waiting=False)
            self.head = None if self.head is None else shown
        if call is not None:
            return call(self.model)
        answering = self._answering(batch)
        if self.function is not None:
            if answering is not None:
                raise ConfigError(
                    "loss.function: this batch has numbers that an action head learns, by a loss of its own; leave the "
                    "function out"
                )
            loss = loss_by(self.function, self._run(batch), batch, num_items_in_batch, trains=self.training)
            return {"loss": self._with_idle(loss, batch)}
        at = supervised_positions(batch, shift=self.shift)  # type: ignore[arg-type]
        items = num_items_in_batch
        if items is None:
            if not len(at) and answering is None:
                raise SequenceError(
                    "no supervised position in this batch; check that answers are supervised (`weight`)"
                )
            items = at.weights.sum() + (0 if answering is None else answering.weight)
        if self.head is None:
            logits, hidden = self._logits(batch, at, answering)
            loss = at.loss(logits, num_items=num_items_in_batch if answering is None else items, **vars(self.rule))
        else:
            loss, hidden = self._fused(batch, at, answering)
            loss = loss / items
        if answering is not None:
            loss = loss + answering.loss(hidden) / items
        return {"loss": self._with_idle(loss, batch, answering)}

    def _fused(
        self, batch: dict[str, Any], at: Supervised, answering: Answering | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Head and loss of tokens in one, summed by weight; and what would have entered the head."""
        assert self.head is not None, "asked before"
        weight, bias = self.head.tensors()
        if at.highest >= len(weight):
            raise SequenceError(f"target {at.highest} is no row of the head, which has {len(weight)}")
        with head_held_back(self.lm) as seen:
            self._run(batch, answering)
        chosen = at.select(seen[0])
        summed = head_loss(chosen, weight, bias, at.targets, at.weights, rule=self.rule, form=self.head.form)
        return summed, seen[0]

    def _answering(self, batch: dict[str, Any]) -> Answering | None:
        """What action heads learn from the batch."""
        answering: Answering | None = self.model.answering(Batch({k: batch[k] for k in KEYS if k in batch}))
        if answering is not None and self.upper is not None and LOWER in batch["segments"]:
            raise ConfigError(
                "cache.layers: kept hidden states have no slots for an action head; leave cache.layers out"
            )
        return answering

    def _with_idle(self, loss: torch.Tensor, batch: dict[str, Any], answering: Answering | None = None) -> torch.Tensor:
        """Where several ranks train, parts that this batch has no items for take part with a zero: ranks that send
        gradients of different tensors would wait for each other, or add up what does not belong together."""
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        if not (several and self.training and torch.is_grad_enabled()):
            return loss
        features, parts = batch.get("features") or {}, self.model.parts
        used = {id(serving(parts, name)) for name, block in features.items() if len(block["rows"])}
        used |= {id(head) for head in ([] if answering is None else answering.modules)}
        for part in (*parts.values(), *self.model.heads.values()):
            for parameter in part.parameters() if id(part) not in used else ():
                if parameter.requires_grad:
                    loss = loss + 0.0 * parameter.sum().to(loss.dtype)
        return loss

    def _run(self, batch: dict[str, Any], answering: Answering | None = None) -> Any:
        inputs = {k: batch[k] for k in KEYS if k in batch}
        if self.upper is not None and LOWER in inputs["segments"]:
            return self.upper(**inputs, return_loss=False, logits_to_keep=0)
        cache = None if answering is None else answering.cache
        return self.model(**inputs, past_key_values=cache, return_loss=False, logits_to_keep=0)

    def _logits(
        self, batch: dict[str, Any], at: Supervised, answering: Answering | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits at supervised positions by the model's own head; and what would have entered it."""
        if self.lm.get_output_embeddings() is None:  # a classifier's logits are no rows of a vocabulary
            return at.select(self._run(batch)["logits"]), None
        with entering_head(self.lm, lambda hidden: at.select(hidden).unsqueeze(0)) as seen:
            return self._run(batch, answering)["logits"][0], seen[0]


def fused_head(model: Any, *, waiting: bool | None = None) -> Head | None:
    """The head of a model whose matrix and form are all that makes its logits, so that head and loss can be one.

    `waiting`: whether weights are yet to come, in place of a look.
    """
    lm = model.lm
    if waiting or (waiting is None and any(p.is_meta for p in lm.parameters())):
        return Head(lm)  # nothing to show it on yet
    head = head_of(lm)
    if head is not None and head.plain:
        return head
    log.warn_once(f"{type(lm).__name__} does more to its logits than is known here; its own head makes them")
    return None
