"""The check at step 1: what does not learn is named, and zeros are let through from a printed list alone."""

from __future__ import annotations

import pytest
import torch

from tests.model import test_flow, test_heads
from tests.tune.models import batch_for, with_parts
from vertebra.training.learner import Learner
from vertebra.tune.gradients import check_gradients
from vertebra.tune.lora import LoraConfig
from vertebra.tune.stages import TuneConfig, choose


def test_the_check_finds_what_does_not_learn():
    model = with_parts()
    choose(model, TuneConfig(stage="full-finetune"))
    model.parts["image"].projector.fc1.bias.requires_grad_(False)
    model(**batch_for(model)).loss.backward()
    model.parts["image"].projector.fc1.bias.requires_grad_(True)
    model.parts["action"].weight.grad[:] = float("nan")
    model.parts["image"].projector.fc2.bias.grad[:] = 0
    found = check_gradients(model)
    assert found.missing == ("parts.image.projector.fc1.bias",)
    assert found.not_finite == ("parts.action.weight",)
    assert found.zero == ("parts.image.projector.fc2.bias",)
    assert not found.good
    assert "do not learn" in str(found)
    assert check_gradients(model, ["*.projector.fc2.*"]).allowed_zero == ("parts.image.projector.fc2.bias",)


def test_the_check_prints_what_may_be_zero():
    model = with_parts()
    choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2)))
    model(**batch_for(model)).loss.backward()
    expected = "all 29 trainable tensors have a finite gradient. Zero, as they may be: 14 × *.lora_A.*"
    assert expected in str(check_gradients(model))


@pytest.mark.parametrize("family", ["tiny-llama2", "tiny-phi2", "tiny-qwen3", "tiny-gemma2", "tiny-opt"])
def test_what_a_flow_head_does_not_read_may_be_zero(family: str):
    """It reads keys and values: behind those of the last layer nothing learns, and everything before them must."""
    model = test_flow.acting(family)
    for parameter in model.heads.parameters():  # one from scratch begins at zero
        torch.nn.init.normal_(parameter, std=0.2)
    choose(model, TuneConfig(stage="full-finetune"))
    batch = test_flow.batch_of(model, *[test_flow.row(5, seed, end=False) for seed in range(3)])
    Learner(model)(**batch)["loss"].backward()
    found = check_gradients(model)
    assert found.good, str(found)
    behind = {id(p) for p in model.backbone.llm.get_output_embeddings().parameters()}
    behind |= {id(p) for p in model.backbone.layers[-1].parameters()}
    if model.backbone.final_norm is not None:
        behind |= {id(p) for p in model.backbone.final_norm.parameters()}
    named = dict(model.named_parameters())
    assert found.allowed_zero
    assert all(id(named[name]) in behind or name.endswith("k_proj.bias") for name in found.allowed_zero)
    keys = next(p for name, p in model.backbone.layers[-1].named_parameters() if "k_proj" in name and "weight" in name)
    keys.grad = torch.zeros_like(keys)
    assert len(check_gradients(model).zero) == 1


def test_what_an_l1_head_does_not_read_may_be_zero():
    model = test_heads.acting()
    choose(model, TuneConfig(stage="full-finetune"))
    Learner(model)(**test_heads.batch_of(model, *test_heads.ROWS))["loss"].backward()
    head = model.backbone.llm.get_output_embeddings().weight
    head.grad = torch.zeros_like(head)
    assert check_gradients(model).good
    first = model.backbone.layers[0]
    for parameter in first.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert not check_gradients(model).good
