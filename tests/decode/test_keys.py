"""Every key of a `GenerationConfig` does with us what it does in the library: the same config, given to both.

The list is the config's own, so that a key that a new version brings fails here until it has a fate and a proof.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CompileConfig, GenerationConfig, WatermarkingConfig

from tests.decode.plain import backbone, prompts
from vertebra.decode.call import generate
from vertebra.decode.settings import KEYS
from vertebra.errors import GenerationError

NAME, LENGTH, NEW = "tiny-llama2", 12, 8
NEVER = 2**31
SAID = [[int(token) for token in row] for row in generate(
    backbone(NAME), prompts(NAME, (LENGTH, LENGTH)), max_new_tokens=NEW, eos_token_id=()
).tokens]  # fmt: skip
END = SAID[0][2]
STOP = backbone(NAME).tokenizer.decode(SAID[0][:6])[5:8]
"""Text that the first row says on its way."""

# key: (its value, what it needs beside it); each changes the tokens, or the scores where it shapes what is drawn from
TOKENS: dict[str, tuple[Any, dict[str, Any]]] = {
    "max_new_tokens": (3, {}),
    "max_length": (LENGTH + 3, {"max_new_tokens": None}),
    "min_new_tokens": (6, {"eos_token_id": END}),
    "min_length": (LENGTH + 6, {"eos_token_id": END}),
    "max_time": (1e-9, {}),
    "stop_strings": ([STOP], {}),
    "eos_token_id": ([END, SAID[1][4]], {}),
    "pad_token_id": (77, {"eos_token_id": END}),
    "repetition_penalty": (9.0, {"sequence_bias": {(9,): 8.0}}),
    "no_repeat_ngram_size": (1, {"sequence_bias": {(9,): 50.0}}),
    "sequence_bias": ({(9,): 50.0}, {}),
    "bad_words_ids": ([[SAID[0][0]], SAID[1][:2]], {}),
    "suppress_tokens": ([SAID[0][1], SAID[1][0]], {}),
    "begin_suppress_tokens": ([SAID[0][0], SAID[1][0]], {}),
    "forced_eos_token_id": (5, {}),
    "num_beams": (3, {}),
    "num_return_sequences": (2, {"num_beams": 3}),
    "early_stopping": (True, {"num_beams": 3, "eos_token_id": END}),
    "length_penalty": (-9.0, {"num_beams": 3, "eos_token_id": [END, SAID[1][1]], "pad_token_id": 77}),
    "exponential_decay_length_penalty": ((1, 9.0), {"eos_token_id": END}),
    "guidance_scale": (9.0, {}),
    "watermarking_config": (WatermarkingConfig(bias=50.0), {}),
}
SHAPING: dict[str, Any] = {
    "do_sample": True, "temperature": 0.6, "top_k": 7, "top_p": 0.6, "min_p": 0.2, "typical_p": 0.5, "top_h": 0.3,
    "epsilon_cutoff": 0.01, "eta_cutoff": 0.01, "renormalize_logits": True,
}  # fmt: skip
SHOWN = ("output_logits", "output_scores", "output_hidden_states", "output_attentions")
ELSEWHERE = (
    *("use_cache", "cache_implementation", "max_cache_len", "prefill_chunk_size"), *SHOWN,
    *("forced_bos_token_id", "remove_invalid_values"),
    *("cache_config", "disable_compile", "compile_config", "prompt_lookup_num_tokens", "max_matching_ngram_size"),
)  # fmt: skip
"""Keys with a test of their own below."""


def config_of(**keys: Any) -> GenerationConfig:
    given = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": NEVER, "pad_token_id": 0, **keys}
    return GenerationConfig(**{name: value for name, value in given.items() if value is not None})


def ours(**options: Any) -> Any:
    config = vars(config_of(**options))
    if config["eos_token_id"] == NEVER:
        config = {**config, "eos_token_id": ()}  # an id that is none would be refused
    return generate(backbone(NAME), prompts(NAME, (LENGTH, LENGTH)), generation_config=config)


def theirs(**options: Any) -> Any:
    ids = torch.tensor([row.ids.tolist() for row in prompts(NAME, (LENGTH, LENGTH))])
    kernel = "eager" if "output_attentions" in options else backbone(NAME).attn  # the only one that keeps them
    with torch.inference_mode(), backbone(NAME).kernel(kernel):
        return backbone(NAME).llm.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=config_of(**options),
            return_dict_in_generate=True, tokenizer=backbone(NAME).tokenizer,
        )  # fmt: skip


def test_every_key_is_proved_or_refused():
    known = {name for name in vars(GenerationConfig()) if name not in ("_commit_hash", "_original_object_hash")}
    honored = {name for name in known if KEYS[name].fate not in ("refused", "none")}
    assert honored == {*TOKENS, *SHAPING, *ELSEWHERE} & known
    silent = {name for name in known if KEYS[name].fate == "none"}
    assert silent <= {"bos_token_id", "transformers_version", "_from_model_config", "return_dict_in_generate"}


@pytest.mark.parametrize("name", TOKENS)
def test_it_makes_the_same_tokens(name):
    """Padding after a row's end too; and other tokens than without the key."""
    value, beside = TOKENS[name]
    result = ours(**{**beside, name: value})
    expected = theirs(**{**beside, name: value}).sequences[:, LENGTH:]
    assert result.sequences.tolist() == expected.tolist()
    without = {key: item for key, item in beside.items() if item is not None}
    if name != "early_stopping":  # it ends a search that could not have found anything better here
        assert ours(**without).sequences.tolist() != result.sequences.tolist()


@pytest.mark.parametrize("name", SHAPING)
def test_it_shapes_the_same_scores(name):
    beside = {"do_sample": name != "renormalize_logits", "output_scores": True}
    unshaped = {} if name == "renormalize_logits" else {"top_k": 0}  # the library's own default is the fifty best
    result = ours(**{**beside, name: SHAPING[name]})
    expected = theirs(**{**beside, **unshaped, name: SHAPING[name]}).scores[0]
    assert torch.equal(result.scores[0].isinf(), expected.isinf())
    torch.testing.assert_close(result.scores[0], expected, atol=1e-4, rtol=1e-4)
    if name != "do_sample":
        assert not torch.equal(result.scores[0], ours(output_scores=True).scores[0])


@pytest.mark.parametrize("name", SHOWN)
def test_it_shows_the_same(name):
    result, expected = getattr(ours(**{name: True}), name.removeprefix("output_")), theirs(**{name: True})
    expected = expected[name.removeprefix("output_")]
    assert len(result) == len(expected) == NEW
    for one, other in zip(result, expected, strict=True):
        for a, b in zip(*(((x,) if isinstance(x, torch.Tensor) else x) for x in (one, other)), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert getattr(ours(), name.removeprefix("output_")) is None


def test_caches_and_chunks():
    assert ours(use_cache=False).shape_of_passes == list(range(LENGTH, LENGTH + NEW))
    assert ours(prefill_chunk_size=5).shape_of_passes == [5, 5, 2] + [1] * (NEW - 1)
    assert ours(cache_implementation="static").tokens == SAID
    assert ours(cache_implementation="static", max_cache_len=LENGTH + NEW).tokens == SAID
    with pytest.raises(GenerationError, match="static cache of 15 columns"):
        ours(cache_implementation="static", max_cache_len=15)


def test_the_first_id_can_be_forced():
    """After a prompt too, where the library forces it only after a single id."""
    assert {row[0] for row in ours(forced_bos_token_id=12).tokens} == {12}


def test_numbers_that_are_none_are_removed():
    """A head that says NaN for one id: the library's own greedy search then says that id."""
    head = backbone(NAME).llm.get_output_embeddings()

    def spoiled(module, given, logits):
        logits = logits.clone()
        logits[..., 7] = float("nan")
        return logits

    handle = head.register_forward_hook(spoiled)
    try:
        assert ours().stop_reason == ["not a number"] * 2
        mended = ours(remove_invalid_values=True)
        assert mended.sequences.tolist() == theirs(remove_invalid_values=True).sequences[:, LENGTH:].tolist()
    finally:
        handle.remove()
    assert mended.failed == []
    assert mended.tokens == SAID


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.fate.startswith("hf")])
def test_what_is_theirs_reaches_them(name, monkeypatch):
    """As it was given, beside nothing that would undo it."""
    values = {
        "disable_compile": True, "compile_config": CompileConfig(), "prompt_lookup_num_tokens": 2,
        "max_matching_ngram_size": 2, "cache_config": {"nbits": 4},
    }  # fmt: skip
    values |= {key: value for key, (value, _) in TOKENS.items()} | SHAPING
    reached = []

    class Stopped(Exception):
        pass

    def reported(self, *, generation_config, **inputs):
        reached.append(generation_config)
        raise Stopped

    model = backbone(NAME)
    monkeypatch.setattr(type(model.llm), "generate", reported)
    with pytest.raises(Stopped):
        generate(model, prompts(NAME, (LENGTH,)), max_new_tokens=2, engine="hf", **{name: values[name]})
    assert getattr(reached[0], name) == values[name]
