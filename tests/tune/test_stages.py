"""Stages: each trains what OpenVLA's trains, on every family, and a pattern that fits nothing is told."""

from __future__ import annotations

from functools import cache
from typing import get_args

import pytest
import torch

from tests.tune.models import backbone, batch_for, row_of_all_kinds, trained, with_all_kinds, with_parts
from vertebra.backbone.tiny import TINY
from vertebra.errors import ConfigError
from vertebra.model.model import Model
from vertebra.tune.gradients import check_gradients
from vertebra.tune.lora import LoraConfig
from vertebra.tune.stages import STAGES, Stage, TuneConfig, choose

# stage -> what trains; language model: "all", "last" (embedding, last layer, head) or ""
MEANT = {
    "words": {"scratch", "projector"},
    "align": {"scratch", "projector"},
    "finetune": {"scratch", "projector", "queries", "all"},
    "vla-train": {"scratch", "projector", "queries", "all"},
    "full-finetune": {"vision", "scratch", "projector", "queries", "all"},
    "vla-full-train": {"vision", "scratch", "projector", "queries", "all"},
    "last-layer-finetune": {"queries", "last"},
    "vla-last-layer-train": {"queries", "last"},
    "vla-sandwich-train": {"vision", "scratch", "projector", "queries", "last"},
    "last-blocks": {"queries", "block"},
}

# Written by hand: names of the embedding, the last layer and the head (none of its own where it is tied) of each family.
LLAMA, TIED = ("model.embed_tokens.", "model.layers.1.", "lm_head."), ("model.embed_tokens.", "model.layers.1.")
OPT = ("model.decoder.embed_tokens.", "model.decoder.layers.1.")
LAST = {
    "tiny-llama2": LLAMA,
    "tiny-llama3": LLAMA,
    "tiny-mistral": LLAMA,
    "tiny-phi2": LLAMA,
    "tiny-phi3": LLAMA,
    "tiny-qwen2": LLAMA,
    "tiny-qwen2.5": TIED,
    "tiny-qwen3": TIED,
    "tiny-opt": OPT,
    "tiny-opt-narrow": OPT,
    "tiny-gpt2": ("transformer.wte.", "transformer.h.1."),
    "tiny-gemma2": TIED,
    "tiny-gemma3": ("model.embed_tokens.", "model.layers.2."),
    "tiny-smollm2": TIED,
    "tiny-smollm3": ("model.embed_tokens.", "model.layers.3."),
    "tiny-pythia": ("gpt_neox.embed_in.", "gpt_neox.layers.1.", "lm_head.", "embed_out."),
}
PARTS = {
    "vision": "parts.image.encoder.",
    "scratch": "parts.box.encoder.",
    "projector": ("parts.image.projector.", "parts.box.projector."),
    "queries": "parts.action.",
    "all": "backbone.",
}


@cache
def model_of(name: str) -> Model:
    return with_all_kinds(name)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("stage", MEANT)
def test_a_stage_trains_exactly_its_parts(name: str, stage: str):
    model = model_of(name)
    choose(model, TuneConfig(stage=stage))  # type: ignore[arg-type]
    last = tuple(f"backbone.llm.{piece}" for piece in LAST[name])
    beginnings = {**PARTS, "last": last, "block": last[1]}
    expected = {n for n, _ in model.named_parameters() for what in MEANT[stage] if n.startswith(beginnings[what])}
    assert trained(model) == expected
    assert all(any(n.startswith(beginnings[what]) for n in expected) for what in MEANT[stage])


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("stage", ["align", "full-finetune", "vla-sandwich-train", "lora"])
def test_gradients_reach_what_trains(name: str, stage: str):
    model = with_all_kinds(name) if stage == "lora" else model_of(name)
    choose(model, TuneConfig(stage=stage, lora=LoraConfig(r=2)))  # type: ignore[arg-type]
    model.zero_grad()
    model.train()(**row_of_all_kinds(model)).loss.backward()
    found = check_gradients(model)
    found.require_good()
    assert all("lora_A" in n or n.endswith(("none", "k_proj.bias")) for n in found.allowed_zero)


def test_gradients_reach_the_projector_beneath_a_frozen_model_that_recomputes():
    model = with_parts()
    choose(model, TuneConfig(stage="align"))
    model.enable_gradient_checkpointing()
    model(**batch_for(model)).loss.backward()
    check_gradients(model).require_good()


def test_stages_on_a_language_model_alone():
    for name, last in LAST.items():
        model = backbone(name)
        for stage in ("finetune", "full-finetune"):
            choose(model, TuneConfig(stage=stage))  # type: ignore[arg-type]
            assert trained(model) == {n for n, _ in model.named_parameters()}
        choose(model, TuneConfig(stage="last-layer-finetune"))
        beginnings = tuple(f"llm.{piece}" for piece in last)
        assert trained(model) == {n for n, _ in model.named_parameters() if n.startswith(beginnings)}
        choose(model, TuneConfig(stage="last-blocks", blocks=2))
        assert {id(p) for p in model.parameters() if p.requires_grad} == {
            id(p) for layer in model.layers[-2:] for p in layer.parameters()
        }


def test_finetuning_says_that_its_projector_is_random(caplog: pytest.LogCaptureFixture, tmp_path):
    model = with_all_kinds()
    choose(model, TuneConfig(stage="finetune"))
    assert "starts from an aligned projector, and parts.image.projector, parts.box.projector is random" in caplog.text
    caplog.clear()
    model.save(tmp_path / "drawn")  # a folder does not make it trained
    choose(Model.load(tmp_path / "drawn"), TuneConfig(stage="last-layer-finetune"))
    assert "look through noise" in caplog.text
    caplog.clear()
    choose(model, TuneConfig(stage="align"))
    assert caplog.text == ""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(**row_of_all_kinds(model)).loss.backward()
    optimizer.step()
    model.save(tmp_path / "aligned")
    for aligned in (model, Model.load(tmp_path / "aligned")):
        for stage in ("finetune", "last-layer-finetune", "lora"):
            choose(aligned, TuneConfig(stage=stage))  # type: ignore[arg-type]
    assert caplog.text == ""


@pytest.mark.parametrize("name", TINY)
def test_bitfit(name: str):
    model = model_of(name)
    biases = {n for n, _ in model.named_parameters() if n.startswith("backbone.") and n.endswith(".bias")}
    if name in ("tiny-gpt2", "tiny-opt", "tiny-opt-narrow", "tiny-phi2", "tiny-pythia", "tiny-qwen2", "tiny-qwen2.5"):
        choose(model, TuneConfig(stage="bitfit"))
        assert trained(model) == biases | {"parts.action.weight"}
    else:
        with pytest.raises(ConfigError, match="has no bias at all"):
            choose(model, TuneConfig(stage="bitfit"))


def test_patterns_come_after_the_stage():
    model = with_parts()
    choose(model, TuneConfig(stage="align", train=("*layers.0.mlp*", "parts.action"), freeze=("*.bias",)))
    assert trained(model) == {
        "parts.image.encoder.cut.weight",
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
