"""Head and loss in one: the numbers of the plain loss, gradients included, for every option and chunk."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.backbone.head import HeadForm
from vertebra.backbone.head_loss import LossRule, head_loss
from vertebra.errors import SequenceError
from vertebra.sequence.loss import token_losses


def plain(hidden, weight, bias, targets, weights, rule: LossRule, form: HeadForm) -> torch.Tensor:
    """All logits at once, by autograd."""
    logits = torch.nn.functional.linear(hidden, weight, bias) * form.scale
    if form.cap is not None:
        logits = form.cap * torch.tanh(logits / form.cap)
    losses = token_losses(logits, targets, label_smoothing=rule.label_smoothing, z_loss=rule.z_loss)
    return (losses * weights).sum()


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(0, 9),
    chunk=st.integers(1, 5),
    smoothing=st.sampled_from([0.0, 0.1]),
    z=st.sampled_from([0.0, 1e-2]),
    cap=st.sampled_from([None, 3.0]),
    scale=st.sampled_from([1.0, 0.25]),
    with_bias=st.booleans(),
    frozen=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_the_plain_loss(count, chunk, smoothing, z, cap, scale, with_bias, frozen, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden, weight, bias = draw(count, 6), draw(11, 6), draw(11) if with_bias else None
    targets = torch.randint(0, 11, (count,), generator=generator)
    weights = torch.rand(count, generator=generator, dtype=torch.float64)
    rule, form = LossRule(label_smoothing=smoothing, z_loss=z), HeadForm(cap=cap, scale=scale)
    leaves = [hidden.requires_grad_()]
    leaves += [] if frozen else [weight.requires_grad_()]
    leaves += [] if frozen or bias is None else [bias.requires_grad_()]
    expected = plain(hidden, weight, bias, targets, weights, rule, form)
    expected_grads = torch.autograd.grad(expected * 3, leaves)
    found = head_loss(hidden, weight, bias, targets, weights, rule=rule, form=form, chunk=chunk)
    grads = torch.autograd.grad(found * 3, leaves)
    assert torch.allclose(found, expected, atol=1e-10)
    for a, b in zip(grads, expected_grads, strict=True):
        assert torch.allclose(a, b, atol=1e-10)
    with torch.no_grad():
        assert torch.allclose(
            head_loss(hidden, weight, bias, targets, weights, rule=rule, form=form, chunk=chunk), expected
        )


@pytest.mark.parametrize("autocast", [False, True])
def test_bf16_stays_near_the_plain_bf16_loss(autocast: bool):
    torch.manual_seed(0)
    dtype = torch.float32 if autocast else torch.bfloat16
    hidden, weight = torch.randn(200, 32).to(dtype).requires_grad_(), torch.randn(500, 32).to(dtype).requires_grad_()
    targets, weights = torch.randint(0, 500, (200,)), torch.ones(200)
    exact = plain(
        hidden.detach().double(), weight.detach().double(), None, targets, weights.double(), LossRule(), HeadForm()
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = head_loss(hidden, weight, None, targets, weights, chunk=64)
        full = plain(hidden, weight, None, targets, weights, LossRule(), HeadForm())
    ours = torch.autograd.grad(found, [hidden, weight])
    theirs = torch.autograd.grad(full, [hidden, weight])
    assert found.dtype == torch.float32
    assert abs(found - exact) / exact < 2e-3
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype == dtype
        assert (a.float() - b.float()).norm() / b.float().norm() < 0.02


def test_shapes_that_do_not_fit():
    with pytest.raises(SequenceError, match="for 3 targets"):
        head_loss(torch.zeros(2, 4), torch.zeros(5, 4), None, torch.zeros(3, dtype=torch.long), torch.ones(3))
