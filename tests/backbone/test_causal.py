"""The wrapper's own behaviour: what it refuses, converts, switches and never leaks."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import pickle

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from vertebra import Model
from vertebra.backbone.causal import HFCausalLLMBackbone
from vertebra.backbone.interface import LLMBackbone
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import write_tiny
from vertebra.errors import ConfigError, MissingPartError, SequenceError, TooLongError, UnknownNameError


def test_signatures_are_the_published_ones():
    forward = inspect.signature(HFCausalLLMBackbone.forward).parameters
    positional = [n for n, p in forward.items() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    assert positional == [
        "input_ids",
        "attention_mask",
        "position_ids",
        "past_key_values",
        "inputs_embeds",
        "labels",
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
    ]
    assert all(forward[n].default is None for n in positional)
    assert [n for n, p in forward.items() if p.kind is p.KEYWORD_ONLY] == ["logits_to_keep", "num_items_in_batch"]
    built = inspect.signature(HFCausalLLMBackbone.__init__).parameters
    assert list(built)[1:9] == [
        "llm_backbone_id",
        "llm_family",
        "llm_cls",
        "hf_hub_path",
        "llm_max_length",
        "hf_token",
        "inference_mode",
        "use_flash_attention_2",
    ]


def test_the_interface_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        LLMBackbone("some-id")
    assert LLMBackbone.__abstractmethods__ == {
        "get_fsdp_wrapping_policy",
        "enable_gradient_checkpointing",
        "forward",
        "embed_input_ids",
        "prompt_builder_fn",
        "transformer_layer_cls",
        "half_precision_dtype",
        "last_layer_finetune_modules",
    }


def test_both_or_neither_input_is_an_error(shared, ids):
    backbone = shared("tiny-gpt2")
    row = ids(backbone)
    with pytest.raises(SequenceError, match="neither"):
        backbone()
    with pytest.raises(SequenceError, match="both"):
        backbone(row, inputs_embeds=backbone.embed_input_ids(row))


def test_an_unknown_argument_is_an_error(shared, ids):
    backbone = shared("tiny-llama2")
    with pytest.raises(TypeError, match="cache_position"):
        backbone(ids(backbone), cache_position=torch.arange(3))


def test_labels_with_few_logits_is_an_error(shared, ids):
    backbone = shared("tiny-llama2")
    row = ids(backbone)
    with pytest.raises(SequenceError, match="logits_to_keep"):
        backbone(row, labels=row, logits_to_keep=1)


def test_too_long_counts_the_cache(shared, ids):
    backbone = shared("tiny-gpt2", inference_mode=True)
    row = ids(backbone)
    limit = backbone.llm.config.max_position_embeddings
    with torch.no_grad():
        cache = backbone(row).past_key_values
    long = torch.full((1, limit - row.shape[1] + 1), 5)
    with pytest.raises(TooLongError, match=f"make {limit + 1}.*has {limit}"):
        backbone(long, past_key_values=cache)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-opt", "tiny-gemma3"])
def test_a_cache_of_pairs_is_converted(shared, ids, name):
    backbone = shared(name, inference_mode=True)
    row = ids(backbone, "go left")
    with torch.no_grad():
        cache = backbone(row[:, :-1]).past_key_values
        pairs = tuple((layer.keys.clone(), layer.values.clone()) for layer in cache.layers)
        from_pairs = backbone(row[:, -1:], past_key_values=pairs).logits
        whole = backbone(row).logits[:, -1:]
    torch.testing.assert_close(from_pairs, whole, atol=1e-4, rtol=1e-4)


def test_a_list_that_is_no_cache_is_refused(shared, ids):
    backbone = shared("tiny-llama2")
    with pytest.raises(SequenceError, match="pairs"):
        backbone(ids(backbone), past_key_values=[torch.zeros(2)])


def test_an_empty_cache_is_a_cache(shared, ids):
    """`bool(DynamicCache())` is False: whoever decides by it loses the prompt."""
    backbone = shared("tiny-llama2", inference_mode=True)
    row = ids(backbone)
    cache = DynamicCache()
    with torch.no_grad():
        out = backbone(row, past_key_values=cache)
        plain = backbone(row, use_cache=False)
    assert out.past_key_values is cache
    assert cache.get_seq_length() == row.shape[1]
    torch.testing.assert_close(out.logits, plain.logits)


def test_cache_is_off_in_training_and_on_in_inference(shared, ids):
    training, inference = shared("tiny-llama2"), shared("tiny-llama2", inference_mode=True)
    with torch.no_grad():
        assert training(ids(training)).past_key_values is None
        assert inference(ids(inference)).past_key_values.get_seq_length() > 0
        assert inference(ids(inference), use_cache=False).past_key_values is None


def test_the_config_in_memory_says_the_same(shared):
    for name in ("tiny-llama2", "tiny-gpt2", "tiny-pythia"):
        assert shared(name).llm.config.use_cache is False
        assert shared(name, inference_mode=True).llm.config.use_cache is True
    assert load_backbone("tiny-llama2", inference_mode=True).llm.config.use_cache is True


@pytest.mark.parametrize("mode", [{}, {"inference_mode": True, "weights": True}], ids=["train", "infer"])
@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gemma3", "tiny-gpt2", "tiny-opt"])
def test_no_way_of_saving_writes_the_training_value(tmp_path, name, mode):
    backbone = load_backbone(name, **mode)
    copied = copy.deepcopy(backbone)
    pickled = pickle.loads(pickle.dumps(backbone))
    ways = {
        "ours": backbone.save,
        "the library's": backbone.llm.save_pretrained,
        "a copy's": copied.llm.save_pretrained,
        "a pickle's": pickled.llm.save_pretrained,
        "multimodal": Model(backbone).save,
    }
    for way, save in ways.items():
        save(tmp_path / way)
        saved = json.loads((tmp_path / way / "config.json").read_text())
        assert saved.get("text_config", saved)["use_cache"] is True, way
        if way not in ("ours", "multimodal"):
            backbone.tokenizer.save_pretrained(tmp_path / way)
        again = load_backbone(tmp_path / way, inference_mode=bool(mode))
        assert again.llm.config.use_cache is bool(mode)
    for one in (backbone, copied, pickled):
        assert one.llm.config.use_cache is one.inference_mode is bool(mode)


def test_a_folder_that_leaked_elsewhere_is_mended(tmp_path):
    folder = write_tiny("tiny-llama2", tmp_path / "leaked", use_cache=False)
    assert json.loads((folder / "config.json").read_text())["use_cache"] is False
    backbone = load_backbone(folder, inference_mode=True, weights=True)
    assert backbone.llm.config.use_cache is True
    backbone.save(tmp_path / "m")
    assert json.loads((tmp_path / "m" / "config.json").read_text())["use_cache"] is True


def test_the_mode_can_be_set_later(shared, ids):
    backbone = load_backbone("tiny-llama2", inference_mode=True, weights=True)
    backbone.inference_mode = False
    assert backbone.llm.config.use_cache is False
    with torch.no_grad():
        assert backbone(ids(backbone)).past_key_values is None


def test_no_setting_leaks_into_what_is_saved(shared, tmp_path):
    backbone = shared("tiny-llama2")
    backbone.save(tmp_path / "m")
    saved = json.loads((tmp_path / "m" / "config.json").read_text())
    assert saved["use_cache"] is True
    assert "_attn_implementation" not in saved
    generation = json.loads((tmp_path / "m" / "generation_config.json").read_text())
    assert "temperature" not in generation
    assert "top_p" not in generation
    assert generation.get("do_sample") in (None, False)


def test_attentions_switch_the_kernel_for_one_call_and_say_so_once(shared, ids, caplog):
    backbone = shared("tiny-llama2")
    with caplog.at_level(logging.WARNING, logger="vertebra"), torch.no_grad():
        for _ in range(2):
            out = backbone(ids(backbone), output_attentions=True)
    assert backbone.attn == "sdpa"
    torch.testing.assert_close(out.attentions[0].sum(-1), torch.ones_like(out.attentions[0].sum(-1)))
    assert sum("eager" in message for message in caplog.messages) == 1


def test_hidden_states_and_plain_tuples(shared, ids):
    backbone = shared("tiny-gpt2")
    with torch.no_grad():
        out = backbone(ids(backbone), output_hidden_states=True, return_dict=False)
    assert isinstance(out, tuple)
    assert len(out[-1]) == backbone.llm.config.num_hidden_layers + 1


def test_flash_attention_falls_back_with_one_warning(caplog):
    with caplog.at_level(logging.WARNING, logger="vertebra"):
        backbone = load_backbone("tiny-llama2", use_flash_attention_2=True)
    assert backbone.attn == "sdpa"
    assert [m for m in caplog.messages if "flash" in m and "`sdpa` is used instead" in m]


def test_a_kernel_asked_for_by_name_exists_or_fails():
    assert load_backbone("tiny-llama2", attn="eager").attn == "eager"
    with pytest.raises(UnknownNameError, match="sdpa"):
        load_backbone("tiny-llama2", attn="spda")
    with pytest.raises(MissingPartError, match="flash-attn"):
        load_backbone("tiny-llama2", attn="flash_attention_2")
    with pytest.raises(ConfigError, match="contradict"):
        load_backbone("tiny-llama2", attn="sdpa", use_flash_attention_2=True)


def test_dtype_is_explicit():
    assert load_backbone("tiny-llama2").dtype == torch.float32
    assert load_backbone("tiny-llama2", dtype="bf16").dtype == torch.bfloat16
    with pytest.raises(UnknownNameError, match="bfloat16"):
        load_backbone("tiny-llama2", dtype="bfloat61")


def test_rotary_tables_stay_exact_in_half_precision():
    """Casting a loaded model also casts the table, which is 0.4 % off then: whole radians at late positions."""
    exact = load_backbone("tiny-llama2", dtype="float32").llm.model.rotary_emb.inv_freq
    for options in ({}, {"inference_mode": True, "weights": True}):
        half = load_backbone("tiny-llama2", dtype="bfloat16", **options).llm.model.rotary_emb.inv_freq
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, exact, atol=0, rtol=0)


def test_padding_sides():
    assert load_backbone("tiny-llama2").tokenizer.padding_side == "right"
    assert load_backbone("tiny-llama2", inference_mode=True).tokenizer.padding_side == "left"


def test_model_max_length_is_the_smaller_of_wish_and_model():
    assert load_backbone("tiny-llama2", llm_max_length=100).tokenizer.model_max_length == 100
    backbone = load_backbone("tiny-llama2", llm_max_length=10_000)
    assert backbone.tokenizer.model_max_length == backbone.llm.config.max_position_embeddings
    with pytest.raises(ConfigError, match="llm_max_length"):
        load_backbone("tiny-llama2", llm_max_length=0)


def test_config_overrides_and_their_typos():
    assert (
        load_backbone("tiny-llama2", config_overrides={"attention_dropout": 0.25}).llm.config.attention_dropout == 0.25
    )
    with pytest.raises(UnknownNameError, match="attention_dropout"):
        load_backbone("tiny-llama2", config_overrides={"attention_droput": 0.25})


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("options", [{}, {"inference_mode": True, "weights": True}])
def test_quantization_names_the_part_that_is_missing(quantization, options, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match="bitsandbytes"):
        load_backbone("tiny-llama2", quantization=quantization, **options)


def test_quantization_typo_and_inference_structure():
    with pytest.raises(UnknownNameError, match="nf4"):
        load_backbone("tiny-llama2", quantization="nf5")
    with pytest.raises(ConfigError, match="weights=True"):
        load_backbone("tiny-llama2", quantization="int8", inference_mode=True)


def test_checkpointing_is_non_reentrant(shared):
    """The reentrant call would give a frozen model with outside embeddings no gradients."""
    backbone = load_backbone("tiny-llama2").train()
    backbone.enable_gradient_checkpointing()
    assert backbone.layers[0].gradient_checkpointing
    function = backbone.layers[0]._gradient_checkpointing_func
    assert function.keywords["use_reentrant"] is False


def test_last_layer_parameters_are_all_that_trains(shared):
    backbone = load_backbone("tiny-llama2").train()
    backbone.requires_grad_(False)
    for module in backbone.last_layer_finetune_modules:
        module.requires_grad_(True)
    row = torch.tensor([[5, 6, 7, 8]])
    backbone(row, labels=row).loss.backward()
    trained = {n for n, p in backbone.llm.named_parameters() if p.grad is not None}
    last = len(backbone.layers) - 1
    assert trained == {
        n
        for n, _ in backbone.llm.named_parameters()
        if n.startswith((f"model.layers.{last}.", "lm_head", "model.embed_tokens"))
    }
    assert isinstance(backbone.last_layer_finetune_modules[0], nn.Embedding)
