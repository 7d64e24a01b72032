"""The string interface: roles, system prompts, refusals, warnings, and the table of formats."""

from __future__ import annotations

import pickle

import pytest

import vertebra
from tests.prompt.tokenizers import committed
from vertebra.errors import ConfigError, PromptError, UnknownNameError
from vertebra.prompt import registry
from vertebra.prompt.builders import PromptBuilder, TurnPromptBuilder
from vertebra.prompt.formats import (
    ChatMLPromptBuilder,
    GemmaPromptBuilder,
    LLaMa2ChatPromptBuilder,
    MistralInstructPromptBuilder,
    PhiPromptBuilder,
    PurePromptBuilder,
    VicunaV15ChatPromptBuilder,
)
from vertebra.prompt.registry import prompt_builder, prompt_builder_names, register_prompt_builder
from vertebra.prompt.rendering import render
from vertebra.prompt.templates import TEMPLATES, Template
from vertebra.prompt.tokenizer import FastTokenizer

TURN_NAMES = [name for name in prompt_builder_names() if name != "template"]


def test_the_interface_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        PromptBuilder("openvla")  # type: ignore[abstract]


@pytest.mark.parametrize("name", TURN_NAMES)
def test_every_format(name: str):
    cls = prompt_builder(name)
    assert cls.name == name == TEMPLATES[name].name
    assert (cls.__doc__ or "").strip()
    human, user = cls("openvla"), cls("openvla")
    assert human.add_turn("human", "Q") == user.add_turn("user", "Q")
    assert human.add_turn("gpt", "A") == user.add_turn("assistant", "A")
    assert human.get_prompt() == user.get_prompt()
    assert human.turn_count == 2
    assert human.prompt == human.get_prompt()
    assert pickle.loads(pickle.dumps(human)).get_prompt() == human.get_prompt()


@pytest.mark.parametrize(
    ("cls", "opened"),
    [
        (PurePromptBuilder, "In: Q\nOut:"),
        (MistralInstructPromptBuilder, "[INST] Q [/INST]"),
        (PhiPromptBuilder, "<|endoftext|>Input: Q\nOutput:"),
        (ChatMLPromptBuilder, "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"),
        (GemmaPromptBuilder, "<start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\n"),
    ],
)
def test_an_open_question(cls, opened: str):
    builder = cls("openvla")
    assert builder.get_potential_prompt("Q") == opened
    assert builder.get_prompt() == ""
    builder.add_turn("human", "Q")
    assert builder.get_prompt() == opened


def test_what_a_turn_writes_is_openvlas():
    builder = PurePromptBuilder("openvla")
    assert builder.add_turn("human", "Q") == "In: Q\nOut: "
    assert builder.add_turn("gpt", "") == " </s>"
    assert builder.prompt == "In: Q\nOut:  </s>"


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (["gpt"], r"`user` is expected here, first"),
        (["human", "human"], r"message 1 is from `user`, but `assistant` is expected here, after `user`"),
        (["human", "gpt", "gpt"], r"message 2 is from `assistant`, but `user`"),
        (["human", "system"], r"stands first, once"),
        (["human", "gpt", "tool"], r"no place for tools"),
        (["humen"], r"unknown role `humen`. Did you mean `human`"),
    ],
)
def test_roles_out_of_order(roles: list[str], message: str):
    builder = ChatMLPromptBuilder("qwen")
    *good, bad = roles
    for role in good:
        builder.add_turn(role, "x")
    before = builder.get_prompt()
    with pytest.raises(PromptError, match=message):
        builder.add_turn(bad, "x")
    assert builder.get_prompt() == before


@pytest.mark.parametrize("message", ["", "  \n"])
def test_an_empty_question_is_an_error(message: str):
    with pytest.raises(PromptError, match="is empty"):
        PurePromptBuilder("openvla").add_turn("human", message)
    with pytest.raises(PromptError, match="is empty"):
        PurePromptBuilder("openvla").get_potential_prompt(message)


def test_an_image_mark_alone_is_a_question():
    assert PurePromptBuilder("openvla").add_turn("human", "<image>") == "In: \nOut: "


def test_a_turn_is_a_string():
    with pytest.raises(PromptError, match="render"):
        PurePromptBuilder("openvla").add_turn("human", [{"type": "image"}])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["pure", "phi", "mistral-instruct", "gemma"])
def test_a_system_prompt_is_never_dropped_in_silence(name: str):
    cls = prompt_builder(name)
    with pytest.raises(PromptError, match=f"`{name}` format has no place for a system prompt.*fold"):
        cls("openvla", "Be kind.").add_turn("human", "Q")
    with pytest.raises(PromptError, match="no place"):
        cls("openvla").add_turn("system", "Be kind.")
    folded = cls("openvla", "Be kind.", system="fold")
    assert "Be kind.\n\nQ" in folded.add_turn("human", "Q")
    folded.add_turn("gpt", "A")
    assert "Be kind." not in folded.add_turn("human", "Q")
    assert cls("openvla", "").add_turn("human", "Q") == cls("openvla").add_turn("human", "Q")


def test_the_systems_turn():
    for cls in (LLaMa2ChatPromptBuilder, VicunaV15ChatPromptBuilder, ChatMLPromptBuilder):
        given, reply = cls("openvla", "Be kind."), cls("openvla")
        reply.add_turn("system", "Be kind.")
        given.add_turn("human", "Q")
        reply.add_turn("human", "Q")
        assert given.get_prompt() == reply.get_prompt()
    both = ChatMLPromptBuilder("openvla", "Be kind.")
    assert both.add_turn("system", "Be kind.")
    with pytest.raises(PromptError, match="two system prompts"):
        ChatMLPromptBuilder("openvla", "Be kind.").add_turn("system", "Be rude.")


def test_default_system_prompts():
    assert (
        LLaMa2ChatPromptBuilder("openvla")
        .get_potential_prompt("Q")
        .startswith("[INST] <<SYS>>\nYou are a helpful language and vision assistant. ")
    )
    assert (
        VicunaV15ChatPromptBuilder("openvla")
        .get_potential_prompt("Q")
        .startswith("A chat between a curious user and an artificial intelligence assistant. The assistant gives")
    )
    assert LLaMa2ChatPromptBuilder("openvla", "").get_potential_prompt("Q") == "[INST] Q [/INST]"
    assert VicunaV15ChatPromptBuilder("openvla", "").get_potential_prompt("Q") == "USER: Q ASSISTANT:"


@pytest.mark.parametrize("name", ["llama2-chat", "vicuna-v15", "chatml"])
@pytest.mark.parametrize("system", [None, "Be kind."])
def test_messages_are_counted_as_they_were_given(name: str, system: str | None):
    """A system prompt that the builder says is no message of the conversation."""
    turns = [{"role": "user", "content": "Q"}, {"role": "user", "content": "R"}]
    with pytest.raises(
        PromptError, match=r"message 1 is from `user`, but `assistant` .*after `user`\. The roles were: user, user\."
    ):
        render(turns, prompt_builder(name)("x", system), FastTokenizer(committed("llama"), bos="<s>"))
    with pytest.raises(PromptError, match=r"message 0 is from `assistant`, but `user` is expected here, first"):
        prompt_builder(name)("x", system).add_turn("gpt", "A")
    reported = [{"role": "system", "content": "Be kind."}, *turns]
    with pytest.raises(PromptError, match=r"message 2 is from `user`.*The roles were: system, user, user\."):
        render(reported, prompt_builder(name)("x"), FastTokenizer(committed("llama"), bos="<s>"))


def test_bad_system_arguments():
    with pytest.raises(PromptError, match="string or None"):
        PurePromptBuilder("openvla", 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Did you mean `fold`"):
        PurePromptBuilder("openvla", system="folded")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "typed", "marks"),
    [
        ("llama2-chat", "see [/INST] yes", ["[/INST]"]),
        ("llama2-chat", "a <<SYS>> b", ["<<SYS>>"]),
        ("vicuna-v15", "then\nUSER: hi", ["USER:"]),
        ("mistral-instruct", "[INST] x", ["[INST]"]),
        ("pure", "x\nOut: yes", ["Out:"]),
        ("pure", "the Plugin: works", []),
        ("phi", "Input: 3", ["Input:"]),
        ("chatml", "see [/INST] USER: In:", []),
    ],
)
def test_typed_marks_that_are_plain_text_warn_once(name: str, typed: str, marks: list[str], caplog):
    for _ in range(2):
        prompt_builder(name)("x").add_turn("human", typed)
    for mark in marks:
        assert caplog.text.count(f"a user's text holds `{mark}`") == 1
    assert caplog.text.count("a user's text holds") == len(marks)


def test_typed_control_tokens_warn_in_the_string_interface(caplog):
    builder = ChatMLPromptBuilder("qwen")
    builder.add_turn("human", "stop <|im_end|> here")
    builder.add_turn("gpt", "<|im_end|>")
    assert caplog.text.count("`<|im_end|>`, which becomes a control token") == 1


def test_another_end_of_answers():
    cls = prompt_builder("pure", eos="<|endoftext|>")
    assert cls is prompt_builder("pure", eos="<|endoftext|>")
    assert issubclass(cls, PurePromptBuilder)
    assert cls.stop == "<|endoftext|>"
    assert cls("gpt2").add_turn("human", "Q") == "In: Q\nOut: "
    builder = cls("gpt2")
    builder.add_turn("human", "Q")
    assert builder.add_turn("gpt", "A") == "A<|endoftext|>"
    assert pickle.loads(pickle.dumps(builder)).get_prompt() == builder.get_prompt()
    assert type(pickle.loads(pickle.dumps(builder))) is cls
    assert prompt_builder("pure", eos="</s>") is PurePromptBuilder
    assert prompt_builder("phi", eos="</s>").template.stop == "\n</s>"
    with pytest.raises(ConfigError, match="leave `eos` out"):
        prompt_builder("template", eos="</s>")


def test_names():
    assert prompt_builder("vicuna-v15") is VicunaV15ChatPromptBuilder
    assert vertebra.prompt.prompt_builder is prompt_builder
    with pytest.raises(UnknownNameError, match="Did you mean `chatml`"):
        prompt_builder("chat-ml")


def test_a_format_of_ones_own():
    class ShoutingPromptBuilder(TurnPromptBuilder):
        """Q> … A> …</s>"""

        template = Template(name="shouting", user=("Q> ", " A> "), answer=("", "</s>"), stop="</s>")

    register_prompt_builder("shouting", ShoutingPromptBuilder)
    try:
        assert prompt_builder("shouting")("x").get_potential_prompt("hey") == "Q> hey A> "
        with pytest.raises(ConfigError, match="exists"):
            register_prompt_builder("shouting", ShoutingPromptBuilder)
        with pytest.raises(ConfigError, match="extends PromptBuilder"):
            register_prompt_builder("dict", dict)  # type: ignore[arg-type]
    finally:
        del registry._BUILDERS["shouting"]
