"""Groups, learning rates and the optimizer, against what they are meant to be."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.models import tiny
from vertebra.backbone.tiny import TINY
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.training.config import OptimConfig
from vertebra.training.learner import Learner
from vertebra.training.optim import groups, lr_factor, make_optimizer, make_schedule, warmup_steps
from vertebra.tune.stages import TuneConfig, choose


@pytest.mark.parametrize("name", TINY)
def test_norms_and_biases_never_decay(name: str):
    model = tiny(name)
    names = {id(p): n for n, p in model.named_parameters()}
    made = groups(Learner(model), OptimConfig(weight_decay=0.1))
    decays = {names[id(p)] for group in made for p in group["params"] if group["weight_decay"]}
    stays = {names[id(p)] for group in made for p in group["params"] if not group["weight_decay"]}
    assert decays | stays == set(names.values())
    assert not decays & stays
    assert all(n.endswith(".bias") or "norm" in n or ".ln_" in n for n in stays)
    assert not any(n.endswith(".bias") or "norm" in n or ".ln_" in n for n in decays)


def test_what_does_not_train_is_in_no_group_and_new_rows_do_not_decay():
    model = tiny()
    grow_vocabulary(model.backbone, ["<ACT>"])
    choose(model, TuneConfig(stage="lora"))
    names = {id(p): n for n, p in model.named_parameters()}
    decays, stays = ({names[id(p)] for p in group["params"]} for group in groups(model, OptimConfig(weight_decay=0.1)))
    assert all("lora_" in name for name in decays)
    assert stays
    assert all("trainable_tokens_delta" in name for name in stays)


def by_hand(step: int, steps: int, config: OptimConfig) -> float:
    rising = min(steps, math.ceil(config.warmup * steps) if config.warmup < 1 else int(config.warmup))
    if step < rising:
        return (step + 1) / rising
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, (step - rising) / max(1, steps - rising))
    high = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[config.schedule]
    return config.floor + (1 - config.floor) * high


@given(
    st.integers(1, 200),
    st.sampled_from(["cosine", "linear", "constant"]),
    st.sampled_from([0, 0.03, 0.5, 7, 500]),
    st.sampled_from([0.0, 0.1]),
)
def test_the_course_of_the_learning_rate(steps: int, schedule: str, warmup: float, floor: float):
    config = OptimConfig(lr=0.5, schedule=schedule, warmup=warmup, floor=floor)  # type: ignore[arg-type]
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=config.lr)
    course = make_schedule(optimizer, steps, config)
    for step in range(steps):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * by_hand(step, steps, config))
        assert 0 < lr_factor(step, steps, config) <= 1 or step >= warmup_steps(warmup, steps)
        optimizer.step()
        course.step()


def test_the_optimizer_is_plain_adamw():
    ours, theirs = (torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    config = OptimConfig(lr=0.1, weight_decay=0.2, betas=(0.8, 0.9))
    matrix, *others = theirs.parameters()
    reference = torch.optim.AdamW(
        [{"params": [matrix], "weight_decay": 0.2}, {"params": others, "weight_decay": 0.0}], lr=0.1, betas=(0.8, 0.9)
    )
    optimizer = make_optimizer(ours, config)
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        for model, stepper in ((ours, optimizer), (theirs, reference)):
            stepper.zero_grad()
            model(inputs).square()[:, 0].sum().backward()
            stepper.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
