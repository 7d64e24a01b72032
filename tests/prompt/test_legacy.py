"""The legacy builders against OpenVLA's own rules, written down once more as plainly as they are there."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.prompt.tokenizers import committed
from vertebra.errors import PromptError
from vertebra.prompt.registry import prompt_builder, prompt_builder_names
from vertebra.prompt.rendering import render
from vertebra.prompt.templates import LLAMA2_CHAT, VICUNA_V15
from vertebra.prompt.tokenizer import FastTokenizer

LEGACY = [name for name in prompt_builder_names() if name.endswith("-legacy")]
SAID = (
    "Q",
    "",
    " ",
    "  \n",
    " <image>\nHello ",
    "<image>",
    "a <image> b",
    "two  blanks\n",
    "\tx",
    "<image><image>?",
    "</s>",
)
SYSTEMS = (None, "", "  ", "You are a robot.", " Be <image> kind.\n", "<s>x", "<image>")


class Original:
    """What a builder of OpenVLA does, turn by turn."""

    def __init__(self, name: str, system: str | None) -> None:
        self.name, self.prompt, self.turns = name.removesuffix("-legacy"), "", 0
        self.bos, self.end = ("", "\n<|endoftext|>") if self.name == "phi" else ("<s>", "</s>")
        if self.name == "llama2-chat":
            reply = (LLAMA2_CHAT.default_system if system is None else system) or ""
            self.system = "<<SYS>\n" + reply.strip() + "\n<</SYS>>\n\n"
        if self.name == "vicuna-v15":
            reply = (VICUNA_V15.default_system if system is None else system) or ""
            self.system = reply.strip() + " "

    def asked(self, reply: str) -> str:
        first = self.turns == 0
        if self.name == "llama2-chat":
            return f"[INST] {self.system if first else ''}{reply} [/INST] "
        if self.name == "vicuna-v15":
            return f"{self.system if first else ''}USER: {reply} ASSISTANT: "
        ask = {"pure": "In: {}\nOut: ", "mistral": "[INST] {} [/INST] ", "phi": "Input: {}\nOutput: "}
        return ask[self.name].replace("{}", reply)

    def add_turn(self, role: str, reply: str) -> str:
        reply = reply.replace("<image>", "").strip()
        if role == "human":
            begin = "<|endoftext|>" if self.name == "phi" and self.turns == 0 else ""
            added = begin + self.asked(reply)
        else:
            added = (reply or " ") + self.end
        self.prompt += added
        self.turns += 1
        return added

    def shown(self, text: str) -> str:
        return (text.removeprefix(self.bos) if self.bos else text).rstrip()

    def get_prompt(self) -> str:
        return self.shown(self.prompt)

    def get_potential_prompt(self, reply: str) -> str:
        return self.shown(self.prompt + self.asked(reply))


def conversations() -> list[tuple[str | None, list[tuple[str, str]]]]:
    draw = random.Random(5)
    made = [(system, [("human", reply), ("gpt", reply)]) for system in SYSTEMS for reply in SAID]
    for _ in range(40):
        roles = ("human", "gpt") * 3
        made.append((draw.choice(SYSTEMS), [(role, draw.choice(SAID)) for role in roles[: draw.randint(1, 6)]]))
    return made


@pytest.mark.parametrize("name", LEGACY)
def test_strings_are_the_originals_to_the_letter(name: str):
    for system, turns in conversations():
        ours, theirs = prompt_builder(name)("openvla", system), Original(name, system)
        for role, text in turns:
            for message in SAID:
                assert ours.get_potential_prompt(message) == theirs.get_potential_prompt(message), (system, message)
            assert ours.add_turn(role, text) == theirs.add_turn(role, text), (system, turns)
            assert ours.get_prompt() == theirs.get_prompt(), (system, turns)
            assert ours.prompt == theirs.prompt
            assert ours.turn_count == theirs.turns


@pytest.mark.parametrize("name", LEGACY)
def test_rendered_ids_are_those_of_the_string(name: str):
    raw = committed("gpt2" if name == "phi-legacy" else "llama")
    tokenizer = FastTokenizer(raw, bos=None if name == "phi-legacy" else "<s>")
    for system, turns in conversations():
        if any("</s>" in text for _, text in turns) or "<s>" in (system or ""):
            continue  # typed control tokens stay text here, and become tokens in a string
        theirs = Original(name, system)
        for role, text in turns:
            theirs.add_turn(role, text)
        conversation: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in turns]
        sequence = render(conversation, prompt_builder(name)("openvla", system), tokenizer)
        assert sequence.ids.tolist() == raw.encode(theirs.get_prompt()).ids, (system, turns)


@pytest.mark.parametrize("name", [name for name in prompt_builder_names() if not name.endswith("-legacy")])
def test_the_other_formats_keep_their_rules(name: str):
    if name == "template":
        return
    cls = prompt_builder(name)
    for message in ("", "  \n"):
        with pytest.raises(PromptError, match="is empty"):
            cls("x").add_turn("human", message)
    silent, with_system = cls("x", ""), cls("x", "", system="fold")
    assert "SYS" not in silent.get_potential_prompt("Q") == with_system.get_potential_prompt("Q")
    assert silent.get_potential_prompt("Q") == silent.get_potential_prompt("Q").lstrip()


def test_a_legacy_format_folds_as_the_others_do():
    builder = prompt_builder("pure-legacy")("openvla", " Be kind. ", system="fold")
    assert builder.get_potential_prompt("Q ") == "In: Be kind.\n\nQ \nOut:"
    assert builder.add_turn("human", "Q ") == "In: Be kind.\n\nQ\nOut: "
    assert (
        prompt_builder("llama2-chat-legacy")("openvla", "", system="fold").add_turn("human", "Q") == "[INST] Q [/INST] "
    )
