"""LoRA: its targets, its names, its start, and the rows of new tokens beside it."""

from __future__ import annotations

import pytest
import torch

from tests.tune.models import backbone, batch_for, train_a_little, trained, with_parts
from vertebra.backbone.tiny import TINY
from vertebra.backbone.vocabulary import grow_vocabulary, new_row_ids
from vertebra.errors import ConfigError
from vertebra.tune.gradients import check_gradients
from vertebra.tune.lora import LoraConfig, add_lora
from vertebra.tune.merge import merge_in_place
from vertebra.tune.stages import TuneConfig, choose

LLAMA = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
OPT = {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}
# Written by hand: every linear of a layer, by family; all others have LLaMA's.
LINEARS = {
    "tiny-phi2": {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"},
    "tiny-phi3": {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
    "tiny-gpt2": {"c_attn", "c_proj", "c_fc"},
    "tiny-pythia": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    "tiny-opt": OPT,
    "tiny-opt-narrow": OPT | {"project_in", "project_out"},
}


@pytest.mark.parametrize("name", TINY)
def test_default_targets_are_all_linears_but_the_head(name: str):
    model = backbone(name)
    leaves = LINEARS.get(name, LLAMA)
    head = model.llm.get_output_embeddings()
    weights = {type(m).__name__: m for m in model.llm.modules()}
    linear = tuple(type(m) for kind, m in weights.items() if kind in ("Linear", "Conv1D"))
    expected = {n for n, m in model.llm.named_modules() if isinstance(m, linear) and m is not head}
    assert {n.rpartition(".")[2] for n in expected} == leaves
    adapter = add_lora(model, LoraConfig(r=2))
    found = {n.partition(".lora_A")[0] for n, _ in model.llm.named_modules() if n.endswith("lora_A")}
    assert found == expected
    assert model.llm.get_output_embeddings() is head
    config = adapter.language.peft_config["default"]
    assert set(config.target_modules) == leaves, "endings, not full names"
    assert "default" in next(n for n, _ in model.llm.named_parameters() if "lora_A" in n)


def test_defaults_are_openvlas():
    settings = LoraConfig()
    assert (settings.r, settings.alpha, settings.dropout, settings.init) == (32, 16, 0.0, "gaussian")


def test_towers_and_projector_only_by_choice():
    model = with_parts()
    choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2)))
    assert not any(".lora_" in name for name in trained(model) if not name.startswith("backbone"))
    model = with_parts()
    choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2, projector=True)))
    assert "parts.image.projector.fc2.lora_A.default.weight" in trained(model)
    assert "parts.image.projector.fc1.lora_B.default.weight" in trained(model)
    model(**batch_for(model)).loss.backward()
    check_gradients(model).require_good()


def test_the_start_depends_on_the_seed_alone():
    first, again, other = (backbone() for _ in range(3))
    state = torch.get_rng_state()
    add_lora(first, LoraConfig(r=2), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    add_lora(again, LoraConfig(r=2), seed=1)
    add_lora(other, LoraConfig(r=2), seed=2)
    name = next(n for n, _ in first.named_parameters() if "lora_A" in n)
    assert torch.equal(dict(first.named_parameters())[name], dict(again.named_parameters())[name])
    assert not torch.equal(dict(first.named_parameters())[name], dict(other.named_parameters())[name])


@pytest.mark.parametrize("name", TINY)
def test_new_rows_train_beside_the_adapter_and_no_other_row_moves(name: str):
    model = backbone(name)
    grow_vocabulary(model, ["<ACT>", "<B>"])
    embedding = model.llm.get_input_embeddings().weight.detach().clone()
    choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2)))
    train_a_little(model)
    merge_in_place(model)
    after = model.llm.get_input_embeddings().weight.detach()
    moved = (after != embedding).any(1).nonzero()[:, 0].tolist()
    assert moved == new_row_ids(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": ("q_porj",)}, "no linear is called q_porj. Linears: .*q_proj"),
        ({"layers": (7,)}, "a model with layers 0 to 1"),
        ({"towers": True}, "the model has no encoder"),
    ],
)
def test_settings_that_cannot_work(settings: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        add_lora(backbone(), LoraConfig(**settings))


def test_layers_and_targets_can_be_chosen():
    model = backbone()
    add_lora(model, LoraConfig(r=2, targets=("q_proj", "mlp.up_proj"), layers=(1,)))
    found = {n.partition(".lora_A")[0] for n, _ in model.llm.named_modules() if n.endswith("lora_A")}
    assert found == {"model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"}
