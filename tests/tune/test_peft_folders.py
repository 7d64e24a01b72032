"""Folders that PEFT wrote itself: each loads with the logits of PEFT's own model, or is refused in one message."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.tune.models import backbone, trained, with_parts
from vertebra.backbone.habits import PROBES
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.errors import CheckpointError, ConfigError
from vertebra.tune.adapter import load_adapter, save_adapter
from vertebra.tune.lora import has_adapter
from vertebra.tune.merge import merge, merge_in_place, probe_logits

QV = ["q_proj", "v_proj"]
# model, and what PEFT is asked for on top of r=4
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("tiny-llama2", {"target_modules": QV}),
    "rslora": ("tiny-llama2", {"target_modules": QV, "use_rslora": True}),
    "dora": ("tiny-llama2", {"target_modules": QV, "use_dora": True}),
    "all-linear": ("tiny-llama2", {"target_modules": "all-linear"}),
    "a pattern": ("tiny-llama2", {"target_modules": r".*\.1\.(mlp\.up_proj|self_attn\.k_proj)"}),
    "ranks": ("tiny-llama2", {"target_modules": QV, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}}),
    "one layer": ("tiny-llama2", {"target_modules": QV, "layers_to_transform": [1]}),
    "pissa": ("tiny-llama2", {"target_modules": QV, "init_lora_weights": "pissa"}),
    "a bias of its own": ("tiny-phi2", {"target_modules": QV, "lora_bias": True}),
    "Conv1D": ("tiny-gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "no task": ("tiny-llama2", {"target_modules": QV, "task_type": None}),
    "all biases": ("tiny-phi2", {"target_modules": QV, "bias": "all"}),
    "biases of adapters": ("tiny-phi2", {"target_modules": QV, "bias": "lora_only"}),
    "all biases of none": ("tiny-llama2", {"target_modules": QV, "bias": "all"}),
    "head saved": ("tiny-llama2", {"target_modules": QV, "modules_to_save": ["lm_head"]}),
    "both tables saved": ("tiny-llama2", {"target_modules": QV, "modules_to_save": ["lm_head", "embed_tokens"]}),
    "biased head saved": ("tiny-phi2", {"target_modules": QV, "modules_to_save": ["lm_head"], "bias": "all"}),
    "tied head saved": ("tiny-qwen2.5", {"target_modules": QV, "modules_to_save": ["lm_head"]}),
    "tied embedding saved": ("tiny-qwen2.5", {"target_modules": QV, "modules_to_save": ["embed_tokens"]}),
    "tie kept": (
        "tiny-qwen2.5", {"target_modules": QV, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "norms saved": ("tiny-llama2", {"target_modules": QV, "modules_to_save": ["input_layernorm"]}),
    "rows": ("tiny-llama2", {"target_modules": QV, "trainable_token_indices": [5, 9]}),
    "rows of both": (
        "tiny-llama2", {"target_modules": QV, "trainable_token_indices": {"embed_tokens": [5, 9], "lm_head": [7]}},
    ),
    "rows of tied": ("tiny-qwen2.5", {"target_modules": QV, "trainable_token_indices": [5, 9]}),
    "rows of a biased head": (
        "tiny-phi2", {"target_modules": QV, "trainable_token_indices": {"embed_tokens": [5], "lm_head": [5]}},
    ),
    "adapters on the tables": ("tiny-llama2", {"target_modules": [*QV, "lm_head", "embed_tokens"]}),
    "an adapter on a tied head": ("tiny-qwen2.5", {"target_modules": [*QV, "lm_head"]}),
    "an adapter on a tied embedding": ("tiny-qwen2.5", {"target_modules": [*QV, "embed_tokens"]}),
}  # fmt: skip


def plain(name: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_checkpoint(name), dtype=torch.float32).eval()


def made(folder: Path, name: str, **asked: Any) -> Path:
    """An adapter as PEFT alone makes and saves it, with everything that it trains moved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **asked})
        model = peft.get_peft_model(plain(name), config)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(folder)
    return folder


def logits_of_peft(name: str, folder: Path, ids: list[list[int]]) -> list[torch.Tensor]:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(plain(name), folder).eval()
        return [model(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in ids]


def ids_of(model: Any) -> list[list[int]]:
    return [[*model.tokenizer(text).input_ids[:60], 5, 9, 7] for text in PROBES]


@torch.no_grad()
def logits_of(model: Any, ids: list[list[int]]) -> list[torch.Tensor]:
    return [model(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in ids]


def furthest(found: list[torch.Tensor], expected: list[torch.Tensor], real: int) -> float:
    """The largest difference of the logits of `real` tokens (our backbone adds a pad token) as a share of the largest."""
    pairs = [(a[:, :real], b[:, :real]) for a, b in zip(found, expected, strict=True)]
    return max(float((a - b).abs().max()) / float(b.abs().max()) for a, b in pairs)


@pytest.mark.parametrize("case", ASKED)
def test_it_loads_as_in_peft_and_merges(case: str, tmp_path: Path):
    name, asked = ASKED[case]
    folder = made(tmp_path / "adapter", name, **asked)
    model, adapter = load_adapter(name, folder, dtype="float32")
    assert not trained(model)
    assert all(growth.is_pad for growth in model.growths)
    ids, real = ids_of(model), len(model.tokenizer) - len(model.growths)
    expected = logits_of_peft(name, folder, ids)

    def off(found: Any) -> float:
        return furthest(logits_of(found.eval(), ids), expected, real)

    assert off(model) < 1e-6
    assert off(backbone(name)) > 1e-3, "the adapter does nothing"
    again = save_adapter(model, adapter, tmp_path / "again")
    assert off(load_adapter(name, again, dtype="float32")[0]) < 1e-6
    merge_in_place(model)
    assert not has_adapter(model)
    assert off(backbone(str(model.save(tmp_path / "merged")))) < 1e-5


def refused(base: Any, folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_adapter(base, folder)
    return str(caught.value)


def edited(folder: Path, **changes: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def test_a_pickle_loads_like_safetensors(tmp_path: Path):
    folder = made(tmp_path / "adapter", "tiny-qwen2", target_modules=QV)
    expected = logits_of_peft("tiny-qwen2", folder, [[5, 9, 7]])
    file = folder / "adapter_model.safetensors"
    torch.save(load_file(file), folder / "adapter_model.bin")
    file.unlink()
    model, _ = load_adapter("tiny-qwen2", folder, dtype="float32")
    assert torch.equal(logits_of(model.eval(), [[5, 9, 7]])[0], expected[0])


def test_it_trains_on_where_peft_would(tmp_path: Path):
    folder = made(tmp_path / "a", "tiny-phi2", target_modules=QV, bias="all", modules_to_save=["final_layernorm"])
    model, _ = load_adapter("tiny-phi2", folder, trainable=True, dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.PeftModel.from_pretrained(plain("tiny-phi2"), folder, is_trainable=True)
    expected = {n.removeprefix("base_model.model.") for n, p in theirs.named_parameters() if p.requires_grad}
    assert {name.removeprefix("llm.") for name in trained(model)} == expected


def test_it_goes_onto_the_language_model_of_a_model_that_sees(tmp_path: Path):
    folder = made(tmp_path / "a", "tiny-llama2", target_modules=QV)
    model, _ = load_adapter(with_parts(), folder)
    alone, _ = load_adapter(backbone(), folder)
    for found, expected in zip(probe_logits(model.eval().backbone), probe_logits(alone.eval()), strict=True):
        assert torch.equal(found, expected)


def test_an_adapter_of_a_larger_models_language_model_alone(tmp_path: Path):
    folder = made(tmp_path / "a", "tiny-llama2", target_modules=QV)
    expected = probe_logits(load_adapter("tiny-llama2", folder, dtype="float32")[0].eval())
    inner = {
        k.replace("base_model.model.", "base_model.model.language_model."): v
        for k, v in load_file(folder / "adapter_model.safetensors").items()
    }
    save_file(inner, folder / "adapter_model.safetensors")
    found = probe_logits(load_adapter("tiny-llama2", folder, dtype="float32")[0].eval())
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    inner["base_model.model.vision.blocks.0.attn.qkv.lora_A.weight"] = torch.zeros(4, 8)
    inner["base_model.model.vision.blocks.0.attn.qkv.lora_B.weight"] = torch.zeros(8, 4)
    inner["base_model.model.projector.fc1.lora_A.weight"] = torch.zeros(4, 8)
    save_file(inner, folder / "adapter_model.safetensors")
    edited(folder, auto_mapping={"base_model_class": "OpenVLAForActionPrediction"})
    message = refused("tiny-llama2", folder)
    assert "trained on OpenVLAForActionPrediction: 8 of its tensors belong to a language model" in message
    assert "does not have: projector (1), vision.blocks (2)" in message


def test_merging_by_name(tmp_path: Path):
    folder = made(tmp_path / "a", "tiny-qwen2.5", target_modules=QV, modules_to_save=["lm_head"])
    assert merge("tiny-qwen2.5", folder, tmp_path / "out", dtype="float32").good
    ids = [[5, 9, 7]]
    out = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    found = [out(input_ids=torch.tensor(ids)).logits[0].detach()]
    assert furthest(found, logits_of_peft("tiny-qwen2.5", folder, ids), 700) < 1e-5
    with pytest.raises(CheckpointError, match=r"merged into .* already"):
        merge(tmp_path / "out", folder, tmp_path / "twice")


def test_biases_that_a_plain_model_has_no_place_for(tmp_path: Path):
    folder = made(tmp_path / "a", "tiny-llama2", target_modules=QV, lora_bias=True)
    model, _ = load_adapter("tiny-llama2", folder, dtype="float32")
    before = probe_logits(model.eval())
    assert torch.allclose(
        before[-1][:, :900], logits_of_peft("tiny-llama2", folder, [model.tokenizer(PROBES[-1]).input_ids])[0][:, :900]
    )
    with pytest.raises(ConfigError, match=r"on 4 linears that have none, model\.layers\.0\.self_attn\.q_proj"):
        merge_in_place(model)
    assert all(torch.equal(a, b) for a, b in zip(probe_logits(model), before, strict=True))


def test_what_is_refused(tmp_path: Path):
    folder = made(tmp_path / "a", "tiny-llama2", target_modules=QV)
    kept = json.loads((folder / "adapter_config.json").read_text())
    other = backbone("tiny-gpt2")
    assert "cannot be put on a GPT2LMHeadModel: Target modules" in refused(other, folder)
    assert not has_adapter(other)
    message = refused(backbone("tiny-mistral"), folder)
    assert "layers.1.self_attn.v_proj.lora_B.weight is (64, 4), expected (32, 4)" in message
    base = backbone()
    assert "of the type LOHA; LORA can be loaded" in refused(base, edited(folder, peft_type="LOHA"))
    edited(folder, **kept)
    assert "was made for SEQ_CLS, with a head" in refused(base, edited(folder, task_type="SEQ_CLS"))
    edited(folder, **kept)
    assert "uses alora_invocation_tokens" in refused(base, edited(folder, alora_invocation_tokens=[3]))
    edited(folder, **kept)
    message = refused(base, edited(folder, trainable_token_indices=[5000]))
    assert "the row of token 5000, and the base has 1024 rows" in message
    edited(folder, **kept)
    message = refused(base, edited(folder, trainable_token_indices=[5]))
    assert "1 missing: base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta" in message
    edited(folder, **kept)
    (folder / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors missing" in refused(base, folder)
    assert "neither vertebra.json" in refused(base, tmp_path)
    shutil.copytree(folder, tmp_path / "run" / "lora_adapter")
    assert f"give `{tmp_path}/run/lora_adapter`" in refused(base, tmp_path / "run")


def test_a_piece_of_our_own_folder_is_not_the_whole(adapter_folder: Path):
    assert f"one piece of the adapter `{adapter_folder}`" in refused(backbone(), adapter_folder / "lora_adapter")


def test_tokens_that_were_added_before_peft_trained(tmp_path: Path):
    grown = backbone("tiny-qwen2")
    grow_vocabulary(grown, ["<ACT>"])
    (row,) = grown.growths[-1].ids
    folder = made(tmp_path / "a", "tiny-qwen2", target_modules=QV, trainable_token_indices=[row])
    grown.tokenizer.save_pretrained(folder)
    message = refused("tiny-qwen2", folder)
    assert f"'<ACT>' ({row})" in message
    assert "grow_vocabulary" in message
    model, _ = load_adapter(grown, folder)
    expected = logits_of_peft("tiny-qwen2", folder, [[5, row, 7]])
    assert furthest(logits_of(model.eval(), [[5, row, 7]]), expected, row) < 1e-6
