"""The head of a language model: how logits come from the hidden states that enter it, in one place for everybody.

    hidden ──► h Wᵀ + b ──► × scale ──► cap · tanh(x / cap) ──► logits
               └─ W: all rows or a few, those that an adapter trains put in

Decoding, the compiled step, training, planning and chosen positions all come here. Whether the form describes a model
is shown by one probe; a model that it does not describe runs its own forward everywhere. It knows neither how tokens
are chosen nor how anything is trained.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vertebra.backbone.shallow import with_first_layer


@dataclass(frozen=True, kw_only=True)
class HeadForm:
    """What happens between the head's product and the logits."""

    cap: float | None = None
    """Logits are `cap * tanh(x / cap)` (Gemma-2)."""
    scale: float = 1.0
    """Logits are multiplied by this, before the cap (Cohere, Granite)."""

    @classmethod
    def of(cls, config: Any) -> HeadForm:
        """The form that a config describes: Cohere's `logit_scale` multiplies, Granite's `logits_scaling` divides."""
        scale = float(getattr(config, "logit_scale", None) or 1.0)
        scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        return cls(cap=getattr(config, "final_logit_softcapping", None), scale=scale)

    def __call__(self, product: torch.Tensor) -> torch.Tensor:
        if self.scale != 1.0:
            product = product * self.scale
        return product if self.cap is None else torch.tanh(product / self.cap) * self.cap


@dataclass(frozen=True, eq=False)
class HeadRows:
    """Some rows of a head, gathered once; `ids[column]` is the token behind a column of its logits."""

    ids: torch.Tensor
    weight: torch.Tensor | None = None
    """None where the rows must be picked out of all logits."""
    bias: torch.Tensor | None = None


class Head:
    """The output matrix of a model and what comes after it. Get it by `head_of`, which shows that it is true."""

    def __init__(self, llm: Any) -> None:
        self.module: nn.Module = llm.get_output_embeddings()
        self.form = HeadForm.of(llm.config)
        self._adapted: Any = getattr(self.module, "token_adapter", None)
        self._base: Any = self.module if self._adapted is None else self._adapted.get_base_layer()
        changed = self.module._forward_hooks or self.module._forward_pre_hooks or "forward" in vars(self.module)
        self.touched = self._adapted is not None or bool(changed)
        """Something hangs on the module, so that its product may be another than its matrix's."""
        # a LoRA, a quantized or a sharded head computes more than its matrix says
        self.plain = type(self._base) is nn.Linear

    def __call__(self, hidden: torch.Tensor, rows: HeadRows | None = None) -> torch.Tensor:
        """Logits of every row of the matrix, or of some."""
        if rows is None:
            return self.logits(hidden)
        logits = self.logits(hidden, rows.weight, rows.bias)
        return logits[..., rows.ids] if rows.weight is None else logits

    def logits(
        self, hidden: torch.Tensor, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits by the model's own head, or by the rows that are given."""
        return self.form(self.module(hidden) if weight is None else F.linear(hidden, weight, bias))

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The matrix and the bias as they are now, with rows that an adapter trains put in."""
        rows, bias = self._adapted, getattr(self._base, "bias", None)
        if rows is None or rows.disable_adapters or rows.merged:
            return self._base.weight, bias
        return rows.get_merged_weights(rows.active_adapters), bias

    def rows(self, ids: torch.Tensor) -> HeadRows:
        """The rows of these ids, copied out of the matrix."""
        if not self.plain:
            return HeadRows(ids)
        weight, bias = self.tensors()
        return HeadRows(ids, weight[ids], None if bias is None else bias[ids])


def head_of(llm: Any) -> Head | None:
    """The head of a model whose logits are the known form of what enters its head, else None."""
    shown = _shown(llm, _probe(llm))
    return None if shown is None else shown[0]


@torch.no_grad()
def head_behind_body(llm: Any) -> Head | None:
    """The head of a model whose logits are exactly `head(base_model(…))`, so that a decoder may run the two apart."""
    if llm.base_model is llm or llm._forward_hooks or llm._forward_pre_hooks or hasattr(llm, "_hf_hook"):
        return None  # somebody hangs on the whole model's forward, which would be passed by
    shallow = with_first_layer(llm)
    if shallow is None or (head := _behind_body(shallow)) is None:
        return _behind_body(llm)
    return head


def _behind_body(llm: Any) -> Head | None:
    probe = _probe(llm)
    with _leaving_body(llm, probe) as left:
        shown = _shown(llm, probe)
    if shown is None:
        return None
    head, entered = shown
    if len(left) != 1:  # the model called its body otherwise than a decoder would, or not at all
        with _evaluating(llm):
            left = [llm.base_model(**probe).last_hidden_state]
    return head if _close(left[0], entered) else None


@torch.no_grad()
def _shown(llm: Any, probe: dict[str, torch.Tensor]) -> tuple[Head, torch.Tensor] | None:
    """A head that a few tokens showed to be true, and what entered it; it is not `plain` where its matrix is not all."""
    if llm.get_output_embeddings() is None:
        return None
    head = Head(llm)
    with _evaluating(llm):
        with entering_head(llm, lambda hidden: hidden) as seen:
            expected = llm(**probe).logits
        if len(seen) != 1 or not _close(head(seen[0]), expected):
            return None
        if head.touched:  # else the module's own product is the matrix's
            head.plain = head.plain and _close(head.logits(seen[0], *head.tensors()), expected)
    return head, seen[0]


@contextmanager
def _leaving_body(llm: Any, probe: dict[str, torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """What leaves the body where it is called with these very tensors and no others."""
    left: list[torch.Tensor] = []

    def leave(module: nn.Module, args: Any, kwargs: dict[str, Any], out: Any) -> None:
        tensors = {name: value for name, value in kwargs.items() if torch.is_tensor(value)}
        if not args and tensors.keys() == probe.keys() and all(tensors[name] is probe[name] for name in probe):
            left.append(out.last_hidden_state)

    handle = llm.base_model.register_forward_hook(leave, with_kwargs=True)
    try:
        yield left
    finally:
        handle.remove()


def _probe(llm: Any) -> dict[str, torch.Tensor]:
    table = llm.get_input_embeddings().weight
    ids = torch.arange(3, 7, device=table.device)[None] % len(table)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    share = 2e-2 if found.dtype.itemsize < 4 else 1e-3  # of the largest: rounding differs
    found, expected = found.float(), expected.float()
    if not bool(expected.isfinite().all()):
        return False  # damaged weights show nothing
    return torch.allclose(found, expected, atol=share * float(expected.abs().max()), rtol=0)


@contextmanager
def _evaluating(llm: nn.Module) -> Iterator[None]:
    """Without dropout; each module is afterwards in the mode that it was in."""
    training = [module for module in llm.modules() if module.training]
    llm.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def entering_head(llm: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Inside, `change` is made to what enters the model's own head, and everything that entered is kept in the list."""
    seen: list[torch.Tensor] = []
    thread = threading.get_ident()

    def enter(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if threading.get_ident() != thread:  # another thread runs the same model, for a batch of its own
            return None
        hidden, *others = arguments
        seen.append(hidden)
        return (change(hidden), *others)

    handle = llm.get_output_embeddings().register_forward_pre_hook(enter)
    try:
        yield seen
    finally:
        handle.remove()


def head_held_back(llm: Any) -> Any:
    """Run the model without its head: what would have entered it is kept, and nothing of it comes in."""
    return entering_head(llm, lambda hidden: hidden[:, :0])
