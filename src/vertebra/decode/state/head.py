"""From the last hidden states to logits: of the whole vocabulary, or of a few allowed rows of the head alone.

Computing only rows is exact for a plain linear head, with a bias or a soft cap behind it. Whether that describes a
model is found out by trying once; a model for which it does not hold runs its own forward, and rows are picked out of
all logits. It knows models, not decoding.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class HeadRows:
    """Some rows of a head, gathered once; `ids[column]` is the token behind a column of its logits."""

    ids: torch.Tensor
    weight: torch.Tensor | None
    """None where the rows must be picked out of all logits."""
    bias: torch.Tensor | None


class Head:
    """The output matrix of a causal model and what comes after it."""

    def __init__(self, llm: Any) -> None:
        self.module = llm.get_output_embeddings()
        self.softcap: float | None = getattr(llm.config, "final_logit_softcapping", None)
        self.num_rows = int(self.module.weight.shape[0])
        # a LoRA, a quantized or a sharded head computes more than its matrix says
        self.plain = type(self.module) is nn.Linear

    def __call__(self, hidden: torch.Tensor, rows: HeadRows | None = None) -> torch.Tensor:
        if rows is None or rows.weight is None:
            logits = self._capped(self.module(hidden))
            return logits if rows is None else logits[..., rows.ids]
        return self._capped(F.linear(hidden, rows.weight, rows.bias))

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def rows(self, ids: torch.Tensor) -> HeadRows:
        """The rows of these ids, copied out of the matrix."""
        if not self.plain:
            return HeadRows(ids, None, None)
        bias = self.module.bias
        return HeadRows(ids, self.module.weight[ids], None if bias is None else bias[ids])


def head_of(llm: Any) -> Head | None:
    """The head of a model whose logits are exactly `head(base(…))`, or None. Tried once for each model."""
    if llm not in _known:
        _known[llm] = _try(llm)
    return _known[llm]


_known: weakref.WeakKeyDictionary[Any, Head | None] = weakref.WeakKeyDictionary()


def _try(llm: Any) -> Head | None:
    if llm.get_output_embeddings() is None or llm.base_model is llm:
        return None
    if llm._forward_hooks or llm._forward_pre_hooks or hasattr(llm, "_hf_hook"):
        return None  # somebody hangs on the whole model's forward, which we would pass by
    head = Head(llm)
    probe = {"input_ids": torch.zeros((1, 2), dtype=torch.long, device=llm.device), "use_cache": False}
    whole = llm(**probe).logits
    parts = head(llm.base_model(**probe).last_hidden_state)
    same = whole.shape == parts.shape and torch.allclose(whole, parts, rtol=1e-3, atol=1e-3)
    return head if same else None
