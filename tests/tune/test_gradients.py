"""The check at step 1: what does not learn is named, and zeros are let through from a printed list alone."""

from __future__ import annotations

from tests.tune.models import batch_for, with_parts
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
