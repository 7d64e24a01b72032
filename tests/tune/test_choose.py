"""Stages: each trains what OpenVLA's trains, on every family, and a pattern that fits nothing is told."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.tune.models import backbone, batch_for, trained, with_parts
from vertebra.errors import ConfigError
from vertebra.tune.choose import STAGES, Stage, TuneConfig, choose
from vertebra.tune.gradients import check_gradients
from vertebra.tune.parts import parts_of

# stage -> (vision, projector, heads, the language model: all, last, or none)
MEANT = {
    "align": (False, True, False, "none"),
    "finetune": (False, True, True, "all"),
    "vla-train": (False, True, True, "all"),
    "full-finetune": (True, True, True, "all"),
    "vla-full-train": (True, True, True, "all"),
    "last-layer-finetune": (False, False, True, "last"),
    "vla-last-layer-train": (False, False, True, "last"),
    "vla-sandwich-train": (True, True, True, "last"),
}


@pytest.mark.parametrize("stage", MEANT)
def test_a_stage_trains_its_parts_and_gradients_reach_them(stage: str):
    model = with_parts()
    choose(model, TuneConfig(stage=stage))  # type: ignore[arg-type]
    vision, projector, heads, language = MEANT[stage]
    names = dict(model.named_parameters())
    last = ("embed_tokens", "layers.1.", "lm_head")
    expected = {
        name
        for name in names
        if (".encoder." in name and vision)
        or (".projector." in name and projector)
        or (name.startswith("parts.action") and heads)
        or (name.startswith("backbone") and language == "all")
        or (name.startswith("backbone") and language == "last" and any(part in name for part in last))
    }
    assert trained(model) == expected
    model.backbone.enable_gradient_checkpointing()
    model(**batch_for(model)).loss.backward()
    check_gradients(model).require_good()


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-opt", "tiny-qwen2.5", "tiny-gemma2"])
def test_stages_on_other_families(name: str):
    model = backbone(name)
    choose(model, TuneConfig(stage="last-layer-finetune"))
    meant = {id(p) for module in model.last_layer_finetune_modules for p in module.parameters()}
    assert {id(p) for p in model.parameters() if p.requires_grad} == meant
    choose(model, TuneConfig(stage="last-blocks", blocks=2))
    assert {id(p) for p in model.parameters() if p.requires_grad} == {
        id(p) for layer in model.layers[-2:] for p in layer.parameters()
    }


def test_bitfit():
    model = backbone("tiny-gpt2")
    choose(model, TuneConfig(stage="bitfit"))
    assert trained(model)
    assert all(name.endswith(".bias") for name in trained(model))
    with pytest.raises(ConfigError, match="has no bias at all"):
        choose(backbone(), TuneConfig(stage="bitfit"))


def test_patterns_come_after_the_stage():
    model = with_parts()
    choose(model, TuneConfig(stage="align", train=("*layers.0.mlp*", "parts.action"), freeze=("*.bias",)))
    assert trained(model) == {
        "parts.image.projector.fc1.weight",
        "parts.image.projector.fc2.weight",
        "parts.action.weight",
        *(f"backbone.llm.model.layers.0.mlp.{n}_proj.weight" for n in ("gate", "up", "down")),
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TuneConfig(train=("part.image",)), "fits no parameter. Did you mean `parts.image`"),
        (TuneConfig(stage="none"), "leaves nothing to train"),
        (TuneConfig(stage="align", freeze=("parts.image",)), "leaves nothing to train"),
        (TuneConfig(stage="last-blocks", blocks=9), "the model has 2 layers"),
    ],
)
def test_choices_that_cannot_work(config: TuneConfig, message: str):
    with pytest.raises(ConfigError, match=message):
        choose(with_parts(), config)


def test_align_needs_a_projector():
    with pytest.raises(ConfigError, match="this model has no projector"):
        choose(backbone(), TuneConfig(stage="align"))


def test_every_stage_name_is_known_to_the_config():
    assert set(STAGES) == set(get_args(Stage))


def test_parts_of_a_plain_module():
    model = backbone()
    assert parts_of(model.llm).lm is model.llm
    assert parts_of(model).lm is model.llm
    assert parts_of(model.llm).layers is model.layers


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
