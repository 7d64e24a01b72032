"""Muon: directions against the singular values they are made of, steps against plain ones, and resume."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.models import random_batch, tiny
from vertebra.backbone.tiny import TINY
from vertebra.config import build
from vertebra.errors import ConfigError
from vertebra.training import muon
from vertebra.training.config import OptimConfig, RunConfig
from vertebra.training.learner import Learner
from vertebra.training.muon import MOMENTUM, POLYNOMIAL, STEPS, orthogonal
from vertebra.training.optim import groups, make_optimizer
from vertebra.tune.stages import TuneConfig, choose


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 24), st.integers(1, 24), st.integers(0, 99))
def test_directions_have_the_singular_vectors_and_nearly_one_as_every_value(count, rows, columns, seed):
    matrices = torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(seed))
    left, values, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    values = values / values.norm(dim=-1, keepdim=True)
    for _ in range(STEPS):
        values = sum(factor * values**power for factor, power in zip(POLYNOMIAL, (1, 3, 5), strict=True))
    exact = left @ torch.diag_embed(values) @ right
    assert torch.allclose(orthogonal(matrices).double(), exact, atol=2e-4)


def test_steps_are_those_of_the_formula():
    """Matrices of several shapes, one without a gradient; what is no matrix goes AdamW's way."""
    ours, plain = (torch.nn.Sequential(*_layers()) for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    config = OptimConfig(kind="muon", lr=0.1, weight_decay=0.2)
    optimizer = make_optimizer(ours, config)
    vectors = torch.optim.AdamW(
        [p for p in plain.parameters() if p.ndim < 2], lr=0.1, betas=config.betas, weight_decay=0
    )
    momenta = {number: torch.zeros_like(layer.weight) for number, layer in enumerate(plain)}
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        for model in (ours, plain):
            model.zero_grad()
            model[:-1](inputs).square().sum().backward()
        optimizer.step()
        vectors.step()
        for number, layer in enumerate(plain[:-1]):
            momenta[number] = MOMENTUM * momenta[number] + (1 - MOMENTUM) * layer.weight.grad
            mixed = MOMENTUM * momenta[number] + (1 - MOMENTUM) * layer.weight.grad
            size = 0.1 * 0.2 * max(layer.weight.shape) ** 0.5
            layer.weight.data = layer.weight.data * (1 - 0.1 * 0.2) - size * orthogonal(mixed[None])[0]
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("together", [1, 36, 72, 80])
def test_many_matrices_are_taken_some_at_a_time(together: int, monkeypatch: pytest.MonkeyPatch):
    """One by one, and across the border of a batch: the steps of all at once."""

    def steps() -> list[torch.Tensor]:
        model = torch.nn.Sequential(*_layers(), *_layers())
        optimizer = make_optimizer(model, OptimConfig(kind="muon", lr=0.1))
        for seed in range(2):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
            optimizer.step()
        return [parameter.detach() for parameter in model.parameters()]

    whole = steps()
    monkeypatch.setattr(muon, "TOGETHER", together)
    for one, other in zip(steps(), whole, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_it_is_torchs_muon_but_for_its_sixteen_bits():
    ours, theirs = (torch.nn.Linear(12, 20, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    mine = make_optimizer(ours, OptimConfig(kind="muon", lr=0.01, weight_decay=0.1))
    peer = torch.optim.Muon(theirs.parameters(), lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    start = ours.weight.detach().clone()
    inputs = torch.randn(9, 12, generator=torch.Generator().manual_seed(1))
    for _ in range(4):
        for model, stepper in ((ours, mine), (theirs, peer)):
            stepper.zero_grad()
            model(inputs).square().sum().backward()
            stepper.step()
    moved = float((ours.weight.detach() - start).norm())
    assert float((ours.weight - theirs.weight).detach().norm()) < 0.1 * moved, (
        "its rounding moves directions by some percent"
    )


def _layers() -> list[torch.nn.Module]:
    torch.manual_seed(3)
    return [torch.nn.Linear(4, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 2)]


@pytest.mark.parametrize("name", TINY)
def test_rows_of_tokens_and_vectors_are_not_turned(name: str):
    """In every family, tied or not: embeddings and heads stay AdamW's, and all layers are turned."""
    model = tiny(name)
    names = {id(p): n for n, p in model.named_parameters()}
    made = groups(Learner(model), OptimConfig(kind="muon"))
    turned = {names[id(p)] for group in made if group.get("orthogonal") for p in group["params"]}
    sizes = {len(model.tokenizer), model.backbone.llm.config.vocab_size}
    for parameter_name, parameter in model.named_parameters():
        inside = any(part in parameter_name for part in (".layers.", ".h.", ".project_in.", ".project_out."))
        expected = inside and parameter.ndim == 2 and "norm" not in parameter_name and ".ln_" not in parameter_name
        assert (parameter_name in turned) == expected, parameter_name
        assert not (expected and sizes & set(parameter.shape)), "a test's vocabulary has the size of a layer"
    assert sum(len(group["params"]) for group in made) == len(names)


def test_adapters_are_turned():
    model = tiny()
    choose(model, TuneConfig(stage="lora"))
    made = groups(model, OptimConfig(kind="muon"))
    assert [bool(group.get("orthogonal")) for group in made] == [True]


def test_a_state_that_was_kept_goes_on_bit_for_bit():
    model = tiny()
    optimizer = make_optimizer(model, OptimConfig(kind="muon", lr=1e-3))

    def step(of, stepper, seed: int) -> None:
        batch = random_batch([7, 9], seed=seed)
        stepper.zero_grad()
        of(**batch).loss.backward()
        stepper.step()

    step(model, optimizer, 0)
    kept = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    step(model, optimizer, 1)
    again = tiny()
    again.load_state_dict(kept[0])
    other = make_optimizer(again, OptimConfig(kind="muon", lr=1e-3))
    other.load_state_dict(kept[1])
    step(again, other, 1)
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_scaler_passes_over_gradients_that_are_not_finite():
    layer = torch.nn.Linear(3, 3)
    optimizer, scaler = make_optimizer(layer, OptimConfig(kind="muon", lr=0.1)), torch.amp.GradScaler("cpu")
    before = [parameter.detach().clone() for parameter in layer.parameters()]
    for huge in (float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale((layer(torch.ones(1, 3)) * huge).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        same = [torch.equal(one, old) for one, old in zip(layer.parameters(), before, strict=True)]
        assert same == [huge > 1] * 2


def test_shards_are_refused():
    with pytest.raises(ConfigError, match=r"optim.kind=muon makes the step of a matrix from the whole of it"):
        build(
            RunConfig,
            {
                "model": {"backbone": "tiny-llama2"}, "name": "m", "data": {"kind": "text", "path": "x"}, "steps": 1,
                "optim": {"kind": "muon"}, "parallel": {"kind": "fsdp"},
            },
        )  # fmt: skip
