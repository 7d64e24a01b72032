"""Head and loss in one, on supervised positions only, never holding all logits: gradients are made in the forward.

    for each chunk of rows:   logits = h Wᵀ + b  →  loss, d logits  →  d h = d logits · W,  d W += d logitsᵀ · h

A chunk's logits are gone before the next chunk's are made, so memory is a chunk and not N × V; the backward only
multiplies. The numbers are those of `sequence.loss.token_losses`. It knows no model: what a family does to its logits
(a bias, a cap, a scale) comes in as values.

Legend: N supervised positions, D hidden size, V rows of the head, C rows of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from vertebra.backbone.head import HeadForm
from vertebra.errors import SequenceError

# Bytes of one chunk's fp32 logits: small enough to stay cheap, large enough that the products run at full speed.
_CHUNK_BYTES = {"cpu": 24 << 20, "cuda": 256 << 20}
_LEAST_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class LossRule:
    """The options of the loss itself."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0


def head_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    rule: LossRule | None = None,
    form: HeadForm | None = None,
    chunk: int | None = None,
) -> torch.Tensor:
    """The sum over N positions of weight × loss, not yet divided by any number of items.

    hidden [N, D], weight [V, D], bias [V], targets and weights [N]. `chunk`: rows at a time; by memory when left out.
    """
    if hidden.ndim != 2 or len(hidden) != len(targets):
        raise SequenceError(f"hidden states of shape {tuple(hidden.shape)} for {len(targets)} targets; expected [N, D]")
    device = hidden.device.type
    mixed = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if mixed else hidden.dtype
    # a chunk in 16 bits ends with a pass over the whole d W in fp32: few chunks, then
    least = _LEAST_ROWS if dtype.itemsize > 2 or not weight.requires_grad else 4 * _LEAST_ROWS
    rows = chunk or max(least, _CHUNK_BYTES.get(device, 64 << 20) // (4 * weight.shape[0]))
    options = _Options(rule or LossRule(), form or HeadForm(), rows, dtype)
    with torch.autocast(device, enabled=False):
        return _HeadLoss.apply(hidden, weight, bias, targets, weights, options)


@dataclass(frozen=True)
class _Options:
    rule: LossRule
    form: HeadForm
    rows: int
    dtype: torch.dtype


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        weights: torch.Tensor,
        options: _Options,
    ) -> torch.Tensor:
        needs = ctx.needs_input_grad[:3]
        low_h, low_w = hidden.detach().to(options.dtype), weight.detach().to(options.dtype)
        wide = torch.float64 if options.dtype == torch.float64 else torch.float32
        grad_h = torch.empty_like(low_h) if needs[0] else None
        # several chunks add up here: in 16 bits each addition would round
        grad_w = torch.zeros_like(low_w, dtype=wide) if needs[1] else None
        grad_b = torch.zeros(len(weight), dtype=wide, device=weight.device) if bias is not None and needs[2] else None
        total = torch.zeros((), dtype=wide, device=hidden.device)
        for start in range(0, len(low_h), options.rows):
            part = slice(start, start + options.rows)
            h = low_h[part]
            logits = torch.nn.functional.linear(h, low_w, None if bias is None else bias.detach().to(options.dtype))
            losses, grad = _loss_and_gradient(logits.to(wide), targets[part], weights[part], options, any(needs))
            total += losses
            if grad is None:
                continue
            low = grad.to(options.dtype)
            if grad_h is not None:
                torch.mm(low, low_w, out=grad_h[part])
            if grad_w is not None:
                if grad_w.dtype == low.dtype:
                    grad_w.addmm_(low.T, h)
                else:
                    grad_w += low.T @ h
            if grad_b is not None:
                grad_b += grad.sum(0)
        ctx.save_for_backward(grad_h, grad_w, grad_b)
        ctx.spent = False
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # the saved tensors are this function's own: scaled in place they cost nothing more, and serve once
        assert not ctx.spent, "the gradients of head_loss were used already; run the forward again"
        ctx.spent = True
        made = [
            None if saved is None else saved.mul_(grad_out.to(saved.dtype)).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (*made, None, None, None)


def _loss_and_gradient(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, options: _Options, needed: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The chunk's summed loss, and d loss / d (h Wᵀ + b) in the logits' own memory."""
    form, rule = options.form, options.rule
    slope = None
    if form.scale != 1.0:
        logits.mul_(form.scale)
    if form.cap is not None:
        logits.div_(form.cap).tanh_()
        slope = 1 - logits.square() if needed else None
        logits.mul_(form.cap)
    weights = weights.to(logits.dtype)
    picked = logits.gather(1, targets[:, None])[:, 0]
    mean = logits.mean(1) if rule.label_smoothing else None
    top = logits.amax(1, keepdim=True)
    sums = logits.sub_(top).exp_().sum(1, keepdim=True)
    lse = (sums.log() + top)[:, 0]
    losses = lse - picked
    if mean is not None:
        losses = (1 - rule.label_smoothing) * losses + rule.label_smoothing * (lse - mean)
    if rule.z_loss:
        losses = losses + rule.z_loss * lse.square()
    total = (losses * weights).sum()
    if not needed:
        return total, None
    steep = weights * (1 + 2 * rule.z_loss * lse)
    grad = logits.mul_((steep / sums[:, 0])[:, None])
    if rule.label_smoothing:
        grad.sub_((weights * (rule.label_smoothing / grad.shape[1]))[:, None])
    grad.scatter_add_(1, targets[:, None], (-(1 - rule.label_smoothing) * weights)[:, None])
    if slope is not None:
        grad.mul_(slope)
    if form.scale != 1.0:
        grad.mul_(form.scale)
    return total, grad
