"""Tokenizers are probed by encoding; their flags are not believed."""

from __future__ import annotations

import pytest
from tokenizers import pre_tokenizers, processors
from transformers import AutoTokenizer

from vertebra.backbone.habits import (
    PROBES,
    anchor_of,
    check_anchor,
    check_fingerprint,
    choose_pad,
    eos_ids,
    fingerprint,
    fingerprint_record,
    probe,
)
from vertebra.backbone.tiny import TINY, tiny_checkpoint
from vertebra.errors import FingerprintError, VocabularyError


def tokenizer_of(name: str):
    return AutoTokenizer.from_pretrained(tiny_checkpoint(name))


@pytest.mark.parametrize("name", list(TINY))
def test_probe_equals_a_plain_look(name):
    tokenizer = tokenizer_of(name)
    habits = probe(tokenizer)
    dressed = tokenizer("a").input_ids
    assert habits.adds_bos is (len(dressed) == 2)
    assert habits.bos_id in (None, dressed[0])
    assert habits.eos_id is None
    assert tokenizer.convert_ids_to_tokens(habits.lone_space_id) in ("▁", "Ġ")


def test_flags_lie_and_the_probe_does_not():
    tokenizer = tokenizer_of("tiny-qwen2.5")
    tokenizer.add_bos_token = True  # says so, does nothing
    assert not probe(tokenizer).adds_bos


def with_end(tokenizer):
    """The tokenizer, now putting its EOS after every text."""
    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    return tokenizer


def test_a_tokenizer_that_breaks_its_policy_is_named_with_it():
    cases = [
        ("bos", tokenizer_of("tiny-qwen2.5"), "adds no BOS"),
        ("none", tokenizer_of("tiny-llama2"), "adds BOS 1"),
        ("prepend bos", tokenizer_of("tiny-llama2"), "adds BOS 1"),
        ("prepend bos", tokenizer_of("tiny-qwen2.5"), "no BOS token to put first"),
        ("none", with_end(tokenizer_of("tiny-gpt2")), "after every text"),
    ]
    for anchor, tokenizer, text in cases:
        with pytest.raises(VocabularyError, match=text) as caught:
            check_anchor(anchor, probe(tokenizer), tokenizer, "some-model")
        assert anchor in str(caught.value)
        assert type(tokenizer).__name__ in str(caught.value)
    check_anchor("prepend bos", probe(tokenizer_of("tiny-phi2")), tokenizer_of("tiny-phi2"), "phi")


def test_two_tokens_before_a_text_are_refused():
    tokenizer = tokenizer_of("tiny-llama2")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> <s> $A", special_tokens=[("<s>", 1)]
    )
    with pytest.raises(VocabularyError, match="2 tokens"):
        probe(tokenizer)


def test_anchor_of_an_unknown_tokenizer():
    assert anchor_of(probe(tokenizer_of("tiny-llama2"))) == "bos"
    assert anchor_of(probe(tokenizer_of("tiny-gpt2"))) == "none"


def test_pad_is_chosen_in_order():
    """An existing pad that ends nothing, else unk, else a reserved token, else one is added (None)."""
    opt, llama3, mistral = tokenizer_of("tiny-opt"), tokenizer_of("tiny-llama3"), tokenizer_of("tiny-mistral")
    gpt2, smollm3 = tokenizer_of("tiny-gpt2"), tokenizer_of("tiny-smollm3")
    assert choose_pad(opt, eos_ids(opt)) == "<pad>"
    assert choose_pad(mistral, eos_ids(mistral)) == "<unk>"
    assert choose_pad(llama3, eos_ids(llama3)) == "<|reserved_special_token_0|>"
    assert choose_pad(smollm3, eos_ids(smollm3)) == "<|finetune_right_pad_id|>"  # its own pad is its EOS
    assert choose_pad(gpt2, eos_ids(gpt2)) is None


def test_fingerprint_is_stable_and_tells_tokenizers_apart():
    prints = {name: fingerprint(tokenizer_of(name)) for name in TINY}
    assert prints == {name: fingerprint(tokenizer_of(name)) for name in TINY}
    assert prints["tiny-llama2"] != prints["tiny-llama3"] != prints["tiny-qwen2.5"]


def test_a_mismatch_shows_the_probes_that_differ():
    tokenizer = tokenizer_of("tiny-llama2")
    record = fingerprint_record(tokenizer)
    check_fingerprint(tokenizer, record, "m")
    tokenizer.add_tokens(["lazy"])
    with pytest.raises(FingerprintError, match="made with") as caught:
        check_fingerprint(tokenizer, record, "m")
    assert PROBES[1] in str(caught.value)
    assert "added token lazy" in str(caught.value)
    assert PROBES[0] not in str(caught.value)


def test_the_fingerprint_sees_what_comes_behind_an_end():
    """Two rules for the blank before a second turn give the same ids for every single text."""
    tokenizer = tokenizer_of("tiny-llama2")
    record = fingerprint_record(tokenizer)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    with pytest.raises(FingerprintError, match=r"2 probes differ(.|\n)*a</s>In: b"):
        check_fingerprint(tokenizer, record, "m")


def test_a_record_that_asked_fewer_probes_is_compared_by_those():
    tokenizer = tokenizer_of("tiny-llama2")
    record = fingerprint_record(tokenizer)
    record["probes"] = {text: ids for text, ids in record["probes"].items() if "a</s>" not in text}
    record["hash"] = "an older one"
    check_fingerprint(tokenizer, record, "m")
    tokenizer.add_tokens(["lazy"])
    with pytest.raises(FingerprintError, match="2 probes differ"):
        check_fingerprint(tokenizer, record, "m")
