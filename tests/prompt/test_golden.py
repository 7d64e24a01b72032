"""Exact text, ids and supervision of every builder, against files that an independent plain script wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.prompt.tokenizers import GOLDEN, committed
from vertebra.prompt.builders import PromptBuilder
from vertebra.prompt.chat_template import TemplatePromptBuilder
from vertebra.prompt.registry import prompt_builder, prompt_builder_names
from vertebra.prompt.rendering import render
from vertebra.prompt.tokenizer import FastTokenizer

FILES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (GOLDEN / "prompts").glob("*.json")}
CASES = [
    pytest.param(golden, case, id=f"{name}-{case['name']}")
    for name, golden in sorted(FILES.items())
    for case in golden["cases"]
]


def tokenizer_for(golden: dict[str, Any]) -> Any:
    raw = committed(golden["tokenizer"])
    if "chat_template" in golden:
        return PreTrainedTokenizerFast(
            tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", chat_template=golden["chat_template"]
        )
    return FastTokenizer(raw, bos=golden["bos"])


def builder_for(golden: dict[str, Any], case: dict[str, Any], tokenizer: Any) -> PromptBuilder:
    cls = prompt_builder(golden["builder"])
    if issubclass(cls, TemplatePromptBuilder):
        cls = cls.of(tokenizer)
    return cls("openvla", case["system"], system="fold" if case["fold"] else "native")


def test_every_builder_has_a_file():
    assert set(FILES) == set(prompt_builder_names())


@pytest.mark.parametrize(("golden", "case"), CASES)
def test_text(golden: dict[str, Any], case: dict[str, Any]):
    builder = builder_for(golden, case, tokenizer_for(golden))
    roles = {"user": "human", "assistant": "gpt"}
    grown = "".join([builder.add_turn(roles[role], text) for role, text in case["turns"]])
    assert builder.get_prompt() == case["text"]
    assert builder.turn_count == len(case["turns"])
    if case["turns"][-1][0] == "assistant":
        assert grown == case["text"]


# The originals' potential prompt cleans nothing, and says no BOS: test_legacy.py compares it.
TIDY = [case for case in CASES if not case.values[0]["builder"].endswith("-legacy")]


@pytest.mark.parametrize(("golden", "case"), TIDY)
def test_potential_prompt(golden: dict[str, Any], case: dict[str, Any]):
    turns = case["turns"] if case["turns"][-1][0] == "user" else case["turns"][:-1]
    asked, answered = (builder_for(golden, case, tokenizer_for(golden)) for _ in range(2))
    for role, text in turns[:-1]:
        asked.add_turn(role, text)
        answered.add_turn(role, text)
    before = asked.get_prompt()
    potential = asked.get_potential_prompt(turns[-1][1])
    assert asked.get_prompt() == before
    answered.add_turn("user", turns[-1][1])
    assert potential == answered.get_prompt()


@pytest.mark.parametrize(("golden", "case"), CASES)
def test_ids_and_supervision(golden: dict[str, Any], case: dict[str, Any]):
    tokenizer = tokenizer_for(golden)
    conversation = [{"role": role, "content": text} for role, text in case["turns"]]
    sequence = render(conversation, builder_for(golden, case, tokenizer), tokenizer)
    assert sequence.ids.tolist() == case["ids"]
    assert sequence.weight.nonzero()[0].tolist() == case["trained"]
    assert sequence.target.tolist() == case["ids"]


ROBOT = [("human", " <image>\nHello "), ("gpt", "Hi there. "), ("human", "What next?"), ("gpt", "Go left.")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pure-legacy", "In: Hello\nOut: Hi there.</s>In: What next?\nOut: Go left.</s>"),
        (
            "llama2-chat-legacy",
            "[INST] <<SYS>\nYou are a robot.\n<</SYS>>\n\nHello [/INST] Hi there.</s>[INST] What next? [/INST] Go left.</s>",
        ),
        (
            "llama2-chat",
            "[INST] <<SYS>>\nYou are a robot.\n<</SYS>>\n\nHello [/INST] Hi there.</s>[INST] What next? [/INST] Go left.</s>",
        ),
        ("mistral-legacy", "[INST] Hello [/INST] Hi there.</s>[INST] What next? [/INST] Go left.</s>"),
        (
            "phi-legacy",
            "<|endoftext|>Input: Hello\nOutput: Hi there.\n<|endoftext|>Input: What next?\nOutput: Go left.\n<|endoftext|>",
        ),
        ("vicuna-v15", "You are a robot. USER: Hello ASSISTANT: Hi there.</s>USER: What next? ASSISTANT: Go left.</s>"),
    ],
)
def test_historical_strings(name: str, text: str):
    """What OpenVLA's builders wrote, `<image>` and white space in messages included."""
    builder = prompt_builder(name)("openvla", "You are a robot.")
    for role, message in ROBOT:
        builder.add_turn(role, message)
    assert builder.get_prompt() == text
