"""`vertebra info`: facts without weights, also of a model whose weights are not there."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import LlamaConfig

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import tiny_checkpoint


def facts(vertebra, *arguments):
    done = vertebra("info", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gemma3", "tiny-opt-narrow", "tiny-gpt2", "tiny-qwen2.5"])
def test_what_it_says_is_so(vertebra, name):
    listed = facts(vertebra, name)
    backbone = load_backbone(name)
    total = sum(p.numel() for p in backbone.parameters())
    assert listed["parameters"]["total"] == total
    assert listed["memory"]["fp32"] == 4 * total
    assert listed["memory"]["bf16"] == 2 * total
    assert listed["parameters"]["tied"] == backbone.llm.config.tie_word_embeddings
    assert listed["vocabulary"]["rows"] == backbone.num_rows
    assert listed["vocabulary"]["special"]["pad"]["id"] == backbone.pad_token_id
    assert listed["vocabulary"]["anchor"] == backbone.anchor
    assert tuple(listed["vocabulary"]["ends"].values()) == backbone.eos_token_ids
    assert listed["config"]["embedding_width"] == backbone.embedding_width
    assert listed["attention"] == backbone.attn
    assert listed["prompt_builder"] == backbone.builder
    assert listed["guesses"] == {}


def test_windows(vertebra):
    config = facts(vertebra, "tiny-gemma3")["config"]
    assert (config["window"], config["windowed_layers"]) == (8, 2)
    config = facts(vertebra, "tiny-mistral")["config"]
    assert (config["window"], config["windowed_layers"]) == (8, 2)


def test_the_cache_is_counted(vertebra):
    memory = facts(vertebra, "tiny-llama3")["memory"]
    assert memory["cache_per_1000_positions_bf16"] == 1000 * 2 * 2 * (2 * 2 * 16)  # bytes, k and v, layers x heads x 16


def test_the_table(vertebra):
    out = vertebra("info", "tiny-phi2").out
    for reply in ("tiny-phi2", "PhiForCausalLM", "prepend bos", "<|pad|>", "sdpa", "window none", "pad <|pad|> = 760"):
        assert reply in out


def test_a_7b_of_which_only_the_config_is_here(vertebra, tmp_path):
    source = tiny_checkpoint("tiny-llama2")
    for file in source.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    LlamaConfig(vocab_size=32000).save_pretrained(tmp_path)
    listed = facts(vertebra, str(tmp_path), "--family", "none")
    assert 6.7e9 < listed["parameters"]["total"] < 6.8e9
    assert listed["memory"]["nf4"] < listed["memory"]["int8"] < listed["memory"]["bf16"] < listed["memory"]["fp32"]
    assert listed["family"] == "llama-like"
    assert set(listed["guesses"]) == {
        "anchor",
        "pad rule",
        "prompt builder",
        "layer class",
        "half-precision type",
    }
    shown = vertebra("info", str(tmp_path), "--family", "none").out
    assert "No family describes this model" in shown
    assert "13.5 GB" in shown
    known = facts(vertebra, str(tmp_path))
    assert (known["family"], known["guesses"]) == ("llama2", {})


def test_bad_input(vertebra, tmp_path):
    done = vertebra("info", "tiny-lama2")
    assert done.code == 1
    assert "`tiny-llama2`" in done.err
    done = vertebra("info", str(tmp_path / "absent"))
    assert done.code == 1
    assert "there is no folder" in done.err
    done = vertebra("info", "tiny-llama2", "--attn", "sdap")
    assert done.code == 1
    assert "`sdpa`" in done.err
    assert vertebra("info").code == 2
