"""Stage `words`: a projector learns to make of each slot the embedding of the word that the slot is to predict.

    slot i ──► encoder ──► projector ──► e_i ─┐
    target behind slot i ──► embedding table ──► t_i ─┴──► ‖e_i − t_i‖² / ‖table‖²

No language model runs, so that a step costs the projector alone; afterwards a picture looks to the language model like
words of its own, and the stages behind this one begin there. A slot that is asked for one of several words comes to lie
between them. It knows no task: targets of slots are in the sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from vertebra.errors import SequenceError
from vertebra.model.fresh import token_rms
from vertebra.model.model import Model
from vertebra.sequence.batch import Batch
from vertebra.sequence.loss import supervised_positions
from vertebra.training.learner import Learner


class WordLearner(Learner):
    """A model whose slots learn to be words."""

    def __init__(self, model: Model, *, shift: bool = True) -> None:
        super().__init__(model, fused=False, shift=shift)
        self.size = token_rms(model.backbone) ** 2
        """What an entry of the table is, squared: the loss is a share of it, whatever the family's scale."""

    def forward(
        self, *, num_items_in_batch: Any = None, call: Callable[[nn.Module], Any] | None = None, **batch: Any
    ) -> Any:
        """`loss` over the slots that have a target, divided by `num_items_in_batch` where given."""
        if call is not None:
            return call(self.model)
        model: Any = self.model
        at = supervised_positions(Batch(batch), shift=self.shift)
        slots = batch["slot"][at.rows, at.columns, 0] >= 0
        if not bool(slots.any()):
            raise SequenceError(
                "stage `words` learns from slots that have a target, and no slot of this batch has one; kind `look` "
                "gives them one with data.options={slots: 1.0}"
            )
        made = model.embed(batch)[at.rows[slots], at.columns[slots]]
        words = model.backbone.embed_input_ids(at.targets[slots][None])[0].detach()
        distance = (made.float() - words.float()).square().mean(-1) / self.size
        items = at.weights[slots].sum() if num_items_in_batch is None else num_items_in_batch
        return {"loss": self._with_idle((distance * at.weights[slots]).sum() / items, batch)}
