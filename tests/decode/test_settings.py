"""Every option is honored, passed on or refused by name; what would have no effect is refused."""

from __future__ import annotations

import pytest
from transformers import GenerationConfig

from tests.decode.plain import backbone, prompts
from vertebra.decode.call import generate
from vertebra.decode.settings import KEYS, ROWS, DecodeConfig, settings_of
from vertebra.errors import ConfigError, GenerationError, UnknownNameError

NAME = "tiny-llama2"


def test_every_key_of_the_library_has_a_fate():
    keys = {name for name in vars(GenerationConfig()) if name not in ("_commit_hash", "_original_object_hash")}
    assert keys <= set(KEYS), f"new keys of GenerationConfig: {keys - set(KEYS)}"
    for name, key in KEYS.items():
        if key.fate == "ours":
            assert key.setting in ROWS, name
        if key.fate in ("refused", "hf ids"):
            assert key.why, name


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.fate == "refused"])
def test_refused_by_name(name):
    with pytest.raises(GenerationError, match=f"`{name}` is not supported: .{{20}}"):
        settings_of(**{name: 1})


def test_an_unknown_option_offers_the_nearest():
    with pytest.raises(UnknownNameError, match="`max_new_tokens`"):
        settings_of(max_new_token=3)
    with pytest.raises(UnknownNameError, match="`top_p`"):
        generate(backbone(NAME), prompts(NAME), topp=0.5)
    with pytest.raises(UnknownNameError, match="engine `fast`"):
        generate(backbone(NAME), prompts(NAME), engine="fast")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": -3}, "from 1 on"),
        ({"max_new_tokens": 2.5}, "whole number"),
        ({"max_length": 0}, "max_length is 0"),
        ({"max_new_tokens": 3, "max_length": 9}, "both say"),
        ({"max_new_tokens": 3, "min_new_tokens": 4}, "more than max_new_tokens"),
        ({"max_time": 0}, "max_time is 0"),
        ({"do_sample": True, "temperature": 0}, "greedy is do_sample=False"),
        ({"do_sample": False, "temperature": 0.7}, "temperature would have no effect"),
        ({"temperature": 0, "top_p": 0.9}, "top_p would have no effect"),
        ({"top_p": 1.5}, "from 0 to 1"),
        ({"top_p": 0}, "keeps no token"),
        ({"min_p": -0.1}, "from 0 to 1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"temperature": -1.0}, "from 0 on"),
        ({"repetition_penalty": 0}, "above 0"),
        ({"num_return_sequences": 2}, "the same answer"),
        ({"num_return_sequences": 0}, "from 1 on"),
        ({"eos_token_id": "</s>"}, "token ids"),
        ({"bad_words_ids": [[]]}, "lists of token ids"),
        ({"stop_strings": ""}, "none of it empty"),
        ({"use_cache": False, "chunk": 3}, "`chunk` is about a cache"),
        ({"chunk": 0}, "chunk is 0"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises((GenerationError, ConfigError), match=message):
        settings_of(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[
            ({"num_beams": beams}, "num_beams is .*; expected a whole number from 1 on")
            for beams in (0, -2, 2.5, "many")
        ],
        ({"num_beams": 2, "num_return_sequences": 3}, r"`num_return_sequences` \(3\)"),
        ({"num_beams": 2, "early_stopping": "x"}, "early_stopping"),
        ({"num_beams": 2, "length_penalty": "x"}, "refuses this call"),
        ({"num_beams": 2, "watermarking_config": 5}, "cannot take these settings"),
        ({"num_beams": 2, "compile": True}, "`compile` is ours alone"),
    ],
)
def test_what_the_librarys_engine_cannot_is_no_error_of_its_own(options, message):
    with pytest.raises(GenerationError, match=message):
        generate(backbone(NAME), prompts(NAME), engine="hf", max_new_tokens=3, **options)


class Foreign:
    """A value of a kind that no setting has."""


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.allowed is not None])
def test_a_value_of_another_kind_is_refused_in_words(name):
    for value in (Foreign(), Foreign, [Foreign()], "warm", b"warm", 1 + 2j, [[1], "a", None]):
        try:
            made = settings_of(**{name: value})
        except GenerationError as error:
            assert str(error).startswith(f"{name} is ")  # noqa: PT017
        else:  # a class can be called, and a text can end a row
            assert (name, value) in ADMITTED, (name, made)


ADMITTED = [("stop", Foreign), ("attend", Foreign), ("stop_strings", "warm")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eos_token_id": 5000}, "eos_token_id holds 5000; the head has the ids 0 to"),
        ({"eos_token_id": [2, -4]}, "eos_token_id holds -4"),
        ({"suppress_tokens": [9999]}, "suppress_tokens holds 9999"),
        ({"bad_words_ids": [[1, 9999]]}, "bad_words_ids"),
        ({"max_length": 5}, "the prompt has 17 columns already"),
        ({"cache": "statik"}, "`static`"),
    ],
)
def test_what_the_model_cannot(options, message):
    with pytest.raises((GenerationError, ConfigError), match=message):
        generate(backbone(NAME), prompts(NAME), **options)


def test_a_generation_config_is_read():
    config = GenerationConfig(max_length=40, do_sample=True, temperature=0.5, top_k=7, num_beams=1, bos_token_id=1)
    settings = settings_of(generation_config=config)
    assert (settings.max_length, settings.temperature, settings.top_k) == (40, 0.5, 7)
    assert dict(settings.hf) == {"num_beams": 1}
    later = settings_of(generation_config=config, max_new_tokens=3, do_sample=False)
    assert (later.max_new_tokens, later.max_length, later.samples) == (3, None, False)
    assert settings_of(generation_config={"top_p": 0.5}).samples


def test_defaults():
    assert settings_of() == DecodeConfig()
    assert not DecodeConfig().samples
    assert DecodeConfig().tokens_after(10) == 256
    assert settings_of(DecodeConfig(top_k=3), top_k=None, max_new_tokens=2) == DecodeConfig(max_new_tokens=2)
    assert settings_of(cache_implementation="static", prefill_chunk_size=4) == DecodeConfig(cache="static", chunk=4)
    assert dict(settings_of(cache_implementation="quantized").hf) == {"cache_implementation": "quantized"}
