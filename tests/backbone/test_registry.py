"""The two doors, the tables behind them, real hub names from a cache, own models, and language halves."""

from __future__ import annotations

import json
import logging

import pytest
import torch
import transformers
from transformers import LlamaForCausalLM, MistralForCausalLM, PhiForCausalLM

from vertebra import (
    HFCausalLLMBackbone,
    LLaMa2ChatPromptBuilder,
    LLaMa2LLMBackbone,
    MistralLLMBackbone,
    PhiLLMBackbone,
    PurePromptBuilder,
    VicunaV15ChatPromptBuilder,
    get_llm_backbone_and_tokenizer,
    load_backbone,
    register_family,
    register_model,
)
from vertebra.backbone import Family, tiny_checkpoint, write_tiny
from vertebra.backbone.families.llama2 import LLAMA2_MODELS
from vertebra.backbone.families.mistral import MISTRAL_MODELS
from vertebra.backbone.families.models import FAMILIES, MODELS
from vertebra.backbone.families.phi import PHI_MODELS
from vertebra.errors import CheckpointError, ConfigError, UnknownNameError


@pytest.fixture
def own_tables(monkeypatch):
    """Registering in a test must not change the tables for the others."""
    monkeypatch.setattr("vertebra.backbone.registry.FAMILIES", FAMILIES)
    before = dict(FAMILIES), dict(MODELS)
    yield
    for table, kept in zip((FAMILIES, MODELS), before, strict=True):
        table.clear()
        table.update(kept)


def test_the_historical_tables():
    assert LLAMA2_MODELS["llama2-7b-pure"] == {
        "llm_family": "llama2",
        "llm_cls": LlamaForCausalLM,
        "hf_hub_path": "meta-llama/Llama-2-7b-hf",
    }
    assert set(LLAMA2_MODELS) == {
        "llama2-7b-pure",
        "llama2-13b-pure",
        "llama2-7b-chat",
        "llama2-13b-chat",
        "vicuna-v15-7b",
        "vicuna-v15-13b",
    }
    assert LLAMA2_MODELS["vicuna-v15-13b"]["hf_hub_path"] == "lmsys/vicuna-13b-v1.5"
    assert MISTRAL_MODELS["mistral-v0.1-7b-pure"]["llm_cls"] is MistralForCausalLM
    assert PHI_MODELS["phi-2-3b"] == {"llm_family": "phi", "llm_cls": PhiForCausalLM, "hf_hub_path": "microsoft/phi-2"}


@pytest.mark.parametrize(
    ("cls", "model_id", "tiny", "builder"),
    [
        (LLaMa2LLMBackbone, "llama2-7b-pure", "tiny-llama2", "pure"),
        (LLaMa2LLMBackbone, "llama2-7b-chat", "tiny-llama2", "llama2-chat"),
        (LLaMa2LLMBackbone, "vicuna-v15-7b", "tiny-llama2", "vicuna-v15"),
        (MistralLLMBackbone, "mistral-v0.1-7b-instruct", "tiny-mistral", "mistral-instruct"),
        (PhiLLMBackbone, "phi-2-3b", "tiny-phi2", "phi"),
        (HFCausalLLMBackbone, "llama3.2-1b-instruct", "tiny-llama3", "llama3"),
        (HFCausalLLMBackbone, "qwen2.5-0.5b-base", "tiny-qwen2.5", "pure"),
        (HFCausalLLMBackbone, "qwen2.5-0.5b-instruct", "tiny-qwen2.5", "chatml"),
        (HFCausalLLMBackbone, "opt-350m", "tiny-opt-narrow", "pure"),
        (HFCausalLLMBackbone, "gpt2", "tiny-gpt2", "pure"),
        (HFCausalLLMBackbone, "gemma2-2b-instruct", "tiny-gemma2", "gemma"),
        (HFCausalLLMBackbone, "gemma3-1b-instruct", "tiny-gemma3", "gemma"),
        (HFCausalLLMBackbone, "phi-3-mini-4k", "tiny-phi3", "phi3"),
        (HFCausalLLMBackbone, "smollm2-135m-instruct", "tiny-smollm2", "chatml"),
        (HFCausalLLMBackbone, "smollm3-3b-instruct", "tiny-smollm3", "chatml"),
        (HFCausalLLMBackbone, "pythia-70m", "tiny-pythia", "pure"),
    ],
)
def test_real_ids_load_by_their_real_hub_names(hub, cls, model_id, tiny, builder):
    hub({MODELS[model_id].hub: tiny})
    backbone, tokenizer = get_llm_backbone_and_tokenizer(model_id, 128, None, False, dtype="float32")
    assert type(backbone) is cls
    assert backbone.identifier == model_id
    assert backbone.builder == builder
    assert tokenizer is backbone.tokenizer
    assert tokenizer.model_max_length == 128
    mapped = load_backbone(model_id, inference_mode=True, weights=True, dtype="float32")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(mapped(ids).logits, backbone.eval()(ids).logits)


def test_the_historical_constructor_and_builders(hub):
    hub({"meta-llama/Llama-2-7b-hf": "tiny-llama2", "lmsys/vicuna-7b-v1.5": "tiny-llama2"})
    backbone = LLaMa2LLMBackbone("llama2-7b-pure", llm_max_length=256, inference_mode=True)
    assert backbone.prompt_builder_fn is PurePromptBuilder
    assert LLaMa2LLMBackbone("vicuna-v15-7b", inference_mode=True).prompt_builder_fn is VicunaV15ChatPromptBuilder
    backbone.identifier = "llama2-7b-chat"
    assert backbone.prompt_builder_fn is LLaMa2ChatPromptBuilder
    backbone.identifier = "llama2-7b"
    with pytest.raises(ValueError, match="No PromptBuilder defined for LLM Backbone `llama2-7b`"):
        _ = backbone.prompt_builder_fn
    assert backbone.transformer_layer_cls.__name__ == "LlamaDecoderLayer"
    assert backbone.half_precision_dtype == torch.bfloat16
    with pytest.raises(UnknownNameError, match="llama2-7b-pure"):
        LLaMa2LLMBackbone("llama2-7b-pur")


def test_a_folder_of_ones_own_works_by_reading(tmp_path):
    folder = write_tiny("tiny-qwen2.5", tmp_path / "mine")
    backbone = load_backbone(folder)
    assert backbone.facts_guessed
    assert (backbone.anchor, backbone.builder) == ("none", "template")
    prompt = backbone.prompt_builder_fn("mine")
    prompt.add_turn("user", "Hello")
    assert "<|im_start|>user\nHello<|im_end|>" in prompt.get_prompt()
    assert backbone.transformer_layer_cls.__name__ == "Qwen2DecoderLayer"
    assert len(backbone.layers) == backbone.llm.config.num_hidden_layers


def like_its_id(backbone, known) -> None:
    """What an id and a path must agree on."""
    for name in ("llm_family", "pad_token_id", "num_rows", "anchor", "facts_guessed", "eos_token_ids"):
        assert getattr(backbone, name) == getattr(known, name), name
    assert backbone.tokenizer.pad_token == known.tokenizer.pad_token
    assert backbone.growths == known.growths
    theirs = known.llm.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in backbone.llm.state_dict().items())


@pytest.mark.parametrize(
    ("model_id", "tiny", "place", "builder"),
    [
        ("llama2-7b-pure", "tiny-llama2", "Llama-2-7b-hf", "pure"),
        ("llama2-13b-chat", "tiny-llama2", "Llama-2-13b-chat-hf", "llama2-chat"),
        ("vicuna-v15-7b", "tiny-llama2", "vicuna-7b-v1.5", "vicuna-v15"),
        ("llama2-7b-pure", "tiny-llama2", "mine", "template"),
        ("mistral-v0.1-7b-instruct", "tiny-mistral", "mistral-7b-instruct-v0.1", "mistral-instruct"),
        ("phi-2-3b", "tiny-phi2", "phi-2", "phi"),
        ("phi-2-3b", "tiny-phi2", "renamed", "phi"),
    ],
)
def test_a_folder_is_what_its_id_is(hub, tmp_path, caplog, model_id, tiny, place, builder):
    hub({MODELS[model_id].hub: tiny})
    folder = write_tiny(tiny, tmp_path / place)
    known = load_backbone(model_id, dtype="float32")
    with caplog.at_level(logging.INFO, logger="vertebra"):
        backbone = load_backbone(folder, dtype="float32")
    like_its_id(backbone, known)
    assert backbone.builder == builder
    added = f"`{known.tokenizer.pad_token}` ({known.pad_token_id}) was added to pad"
    assert [message for message in caplog.messages if added in message and f"family `{known.llm_family}`" in message]
    like_its_id(load_backbone(MODELS[model_id].hub, dtype="float32"), known)
    mapped = load_backbone(folder, inference_mode=True, weights=True, dtype="float32")
    like_its_id(mapped, known)


def test_a_family_can_be_named_or_refused(tmp_path):
    folder = write_tiny("tiny-llama2", tmp_path / "mine")
    named = load_backbone(folder, family="llama2")
    assert (named.llm_family, named.pad_token_id, named.num_rows, named.builder) == ("llama2", 960, 1024, "template")
    read = load_backbone(folder, family="none")
    assert (read.llm_family, read.tokenizer.pad_token, read.num_rows) == ("llama-like", "<unk>", 960)
    assert read.facts_guessed
    with pytest.raises(UnknownNameError, match="`llama2`"):
        load_backbone(folder, family="lama2")
    with pytest.raises(
        ConfigError, match=r"`phi` is of PhiForCausalLM; .* is a LlamaForCausalLM, as `llama2`, `llama3`"
    ):
        load_backbone(folder, family="phi")
    with pytest.raises(ConfigError, match="`tiny-llama2` is of the family `llama2`"):
        load_backbone("tiny-llama2", family="llama3")
    assert load_backbone("tiny-llama2", family="llama2").llm_family == "llama2"


def test_a_pad_that_somebody_trained_stays(tmp_path):
    """A folder of LLaMA-2's vocabulary with a pad of its own: the family's would be a second one."""
    folder = write_tiny("tiny-llama2", tmp_path / "mine", vocab_size=961)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    backbone = load_backbone(folder)
    assert (backbone.llm_family, backbone.tokenizer.pad_token, backbone.num_rows) == ("llama2", "[PAD]", 961)
    assert not backbone.growths
    assert load_backbone(folder, family="llama2").tokenizer.pad_token == "<PAD>"


@pytest.mark.parametrize("tiny", ["tiny-llama3", "tiny-smollm2", "tiny-qwen2.5", "tiny-gpt2"])
def test_other_vocabularies_are_not_taken_for_llama2(tmp_path, tiny):
    backbone = load_backbone(write_tiny(tiny, tmp_path / "Llama-2-7b-hf"))
    assert backbone.facts_guessed
    assert backbone.llm_family.endswith("-like")


def test_a_class_is_found_or_refused(tmp_path):
    folder = str(tiny_checkpoint("tiny-llama2"))
    assert type(HFCausalLLMBackbone("mine", "llama2", None, folder, inference_mode=True).llm) is LlamaForCausalLM
    for wrong in ("LlamaForCausalLM", torch.nn.Linear, 3):
        with pytest.raises(ConfigError, match=r"llm_cls is .*LlamaForCausalLM, or None"):
            HFCausalLLMBackbone("mine", "llama2", wrong, folder, inference_mode=True)


def test_a_class_in_no_table(tmp_path):
    """Any causal class of the library: its layers, norm and habits are read off the loaded model."""
    config = transformers.StableLmConfig(
        vocab_size=960, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64,
    )  # fmt: skip
    transformers.StableLmForCausalLM(config).save_pretrained(tmp_path / "m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-llama2"))
    tokenizer.save_pretrained(tmp_path / "m")
    backbone = load_backbone(tmp_path / "m").eval()
    assert backbone.facts_guessed
    assert backbone.anchor == "bos"
    assert len(backbone.layers) == 3
    assert type(backbone.final_norm).__name__ == "LayerNorm"
    with torch.no_grad():
        assert backbone(torch.tensor([[1, 5, 6]])).logits.shape == (1, 3, backbone.num_rows)


def test_a_saved_folder_remembers_what_it_is(tmp_path, hub):
    hub({"meta-llama/Llama-2-7b-chat-hf": "tiny-llama2"})
    load_backbone("llama2-7b-chat").save(tmp_path / "m")
    backbone = load_backbone(tmp_path / "m")
    assert backbone.identifier == "llama2-7b-chat"
    assert (backbone.llm_family, backbone.builder, backbone.facts_guessed) == ("llama2", "llama2-chat", False)
    assert len(backbone.growths) == 1
    assert backbone.num_rows == 1024
    plain = LlamaForCausalLM.from_pretrained(tmp_path / "m")  # any other engine loads it
    assert plain.config.vocab_size == 1024


def test_saving_refuses_to_mix_and_leaves_nothing_behind(tmp_path):
    backbone = load_backbone("tiny-gpt2")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "precious.txt").write_text("x")
    with pytest.raises(CheckpointError, match="not empty"):
        backbone.save(tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    with pytest.raises(CheckpointError, match="not replaced"):
        backbone.save(tmp_path / "m", overwrite=True)
    assert (tmp_path / "m" / "precious.txt").read_text() == "x"
    backbone.save(tmp_path / "own")
    (tmp_path / "own" / "older.txt").write_text("x")
    backbone.save(tmp_path / "own", overwrite=True)
    assert not (tmp_path / "own" / "older.txt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "own"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": 99}, "format 99; this version reads up to 1. Upgrade"),
        ({"backbone": {"id": "x", "family": "llama2"}}, "lacks fingerprint, growths"),
        ({"growths": [{"tokens": ["<A>"]}]}, "a growth in vertebra.json .* is damaged"),
    ],
    ids=["newer", "lacking", "growth"],
)
@pytest.mark.parametrize("mode", [{}, {"inference_mode": True, "weights": True}], ids=["train", "infer"])
def test_a_record_that_cannot_be_read(tmp_path, change, text, mode):
    load_backbone("tiny-llama2").save(tmp_path / "own")
    file = tmp_path / "own" / "vertebra.json"
    written = json.loads(file.read_text())
    if "growths" in change:
        written["backbone"].update(change)
    else:
        written.update(change)
    file.write_text(json.dumps(written))
    with pytest.raises(CheckpointError, match=text):
        load_backbone(tmp_path / "own", **mode)


def test_saving_into_the_home_folder_and_over_a_link(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    backbone = load_backbone("tiny-llama2")
    assert backbone.save("~/models/own") == tmp_path / "models" / "own"
    (tmp_path / "link").symlink_to(tmp_path / "models" / "own")
    backbone.save(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert load_backbone("~/link").identifier == "tiny-llama2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "models"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["own"]


def test_five_lines_add_a_model(own_tables, tmp_path):
    folder = write_tiny("tiny-llama2", tmp_path / "m")
    register_model("my-llama-pure", family="llama2", hub=folder)
    backbone = load_backbone("my-llama-pure")
    assert type(backbone) is LLaMa2LLMBackbone
    assert backbone.prompt_builder_fn is PurePromptBuilder


def test_a_family_of_ones_own(own_tables, tmp_path):
    row = FAMILIES["qwen2"]
    mine = Family(
        name="my-qwen",
        model_type=row.model_type,
        llm_cls=row.llm_cls,
        layer_cls=row.layer_cls,
        layers=row.layers,
        norm=row.norm,
        anchor="none",
        builders=(("", "chatml"),),
        half_precision="bfloat16",
        pad_token=None,
        multiple_of=64,
        isolates_by_position=True,
    )
    register_family(mine)
    register_model("my-qwen-7b", family="my-qwen", hub=write_tiny("tiny-qwen2", tmp_path / "m"))
    assert load_backbone("my-qwen-7b").builder == "chatml"
    with pytest.raises(ConfigError, match="exists already"):
        register_family(mine)
    with pytest.raises(TypeError, match="anchor"):
        Family(name="incomplete")


def test_registering_wrongly(own_tables):
    with pytest.raises(ConfigError, match=r"exists already \(family `llama2`"):
        register_model("llama2-7b-pure", family="llama2", hub="x/y")
    with pytest.raises(ConfigError, match="exists already"):
        register_model("tiny-gpt2", family="gpt2", hub="x/y")
    with pytest.raises(UnknownNameError, match="llama2"):
        register_model("mine", family="lama2", hub="x/y")


def test_options_of_the_doors():
    with pytest.raises(UnknownNameError, match=r"unknown prompt builder `purre`.*`pure`"):
        load_backbone("tiny-llama2", builder="purre")
    for length in (0, "long", None, 2.5):
        with pytest.raises(ConfigError, match="llm_max_length"):
            load_backbone("tiny-llama2", llm_max_length=length)
    with pytest.raises(UnknownNameError, match="config setting `to_dict`"):
        load_backbone("tiny-llama2", config_overrides={"to_dict": 1})
    with pytest.raises(UnknownNameError, match="`dtype`"):
        get_llm_backbone_and_tokenizer("tiny-gpt2", dtyp="bf16")
    with pytest.raises(ConfigError, match="inference mode"):
        load_backbone("tiny-gpt2", weights=True)


def test_loading_says_nothing(caplog, recwarn, capfd):
    """Shipped sampling settings warn on every load elsewhere."""
    with caplog.at_level(logging.WARNING):
        load_backbone("tiny-llama2")
        load_backbone("tiny-gpt2")
    out, err = capfd.readouterr()
    assert (caplog.messages, out, err) == ([], "", "")


def vision_language(kind: str, text_name: str, folder) -> None:
    """A tiny vision-language checkpoint whose language half holds a tiny model's own weights."""
    text = getattr(transformers, {"gemma3": "Gemma3ForCausalLM", "qwen2_5_vl": "Qwen2ForCausalLM"}[kind])
    half = text.from_pretrained(tiny_checkpoint(text_name), dtype="float32")
    settings = half.config.to_dict()
    settings.pop("model_type")
    if kind == "gemma3":
        vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                  "image_size": 28, "patch_size": 14}  # fmt: skip
        config = transformers.Gemma3Config(text_config=settings, vision_config=vision, mm_tokens_per_image=4)
        whole = transformers.Gemma3ForConditionalGeneration(config)
    else:
        settings["rope_parameters"] = {
            **settings["rope_parameters"],
            "mrope_section": [2, 3, 3],
            "rope_type": "default",
        }
        vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 64}
        config = transformers.Qwen2_5_VLConfig(
            text_config=settings, vision_config=vision, tie_word_embeddings=half.config.tie_word_embeddings
        )
        whole = transformers.Qwen2_5_VLForConditionalGeneration(config)
    whole.model.language_model.load_state_dict(half.model.state_dict())
    whole.lm_head.load_state_dict(half.lm_head.state_dict())
    whole.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_checkpoint(text_name)).save_pretrained(folder)


@pytest.mark.parametrize(
    ("kind", "text_name"), [("gemma3", "tiny-gemma3"), ("qwen2_5_vl", "tiny-qwen2"), ("qwen2_5_vl", "tiny-qwen2.5")]
)
def test_the_language_half_of_a_vision_language_checkpoint(kind, text_name, tmp_path, shared, ids):
    vision_language(kind, text_name, tmp_path / "vl")
    expected = shared(text_name)
    row = ids(expected)
    for mode in ({}, {"inference_mode": True, "weights": True}):
        backbone = load_backbone(tmp_path / "vl", dtype="float32", **mode).eval()
        assert type(backbone.llm) is type(expected.llm)
        with torch.no_grad():
            torch.testing.assert_close(backbone(row).logits, expected(row).logits, atol=0, rtol=0)


def test_another_vision_language_checkpoint_is_refused_by_name(tmp_path):
    folder = write_tiny("tiny-llama2", tmp_path / "m")
    transformers.LlavaConfig().save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"`llava`.*gemma3"):
        load_backbone(folder)
