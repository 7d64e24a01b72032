"""`TemplatePromptBuilder` against transformers' own `apply_chat_template`, on every family that ships a template."""

from __future__ import annotations

import itertools
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.prompt.test_properties import hostile, ordinary, reply, talk
from vertebra.backbone.tiny import TINY, tiny_checkpoint
from vertebra.errors import PromptError
from vertebra.prompt.chat_template import TemplatePromptBuilder, _fitting
from vertebra.prompt.rendering import render
from vertebra.sequence.roles import Role

from .tokenizers import committed

WITH_TEMPLATE = [name for name, spec in TINY.items() if spec.template]
CHAT = [
    {"role": "system", "content": "You are a robot."},
    {"role": "user", "content": "What now?"},
    {"role": "assistant", "content": "Go left."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "Stop."},
]


@cache
def tokenizer(name: str) -> Any:
    return AutoTokenizer.from_pretrained(tiny_checkpoint(name))


def with_template(template: str, name: str = "tiny-qwen3") -> Any:
    own = AutoTokenizer.from_pretrained(tiny_checkpoint(name))
    own.chat_template = template
    return own


def theirs(own: Any, conversation: list[dict[str, str]], **arguments: Any) -> list[int]:
    opened = conversation[-1]["role"] != "assistant"
    return own.apply_chat_template(conversation, add_generation_prompt=opened, **arguments)["input_ids"]


def trained_text(own: Any, sequence: Any) -> list[str]:
    """The trained stretches, decoded."""
    stretches: list[list[int]] = []
    before = -2
    for position in sequence.weight.nonzero()[0].tolist():
        if position != before + 1:
            stretches.append([])
        stretches[-1].append(int(sequence.ids[position]))
        before = position
    return [own.decode(stretch) for stretch in stretches]


@pytest.mark.parametrize("name", WITH_TEMPLATE)
@settings(max_examples=25, deadline=None)
@given(conversation=talk(reply(ordinary)))
def test_ids_are_those_of_apply_chat_template(name: str, conversation):
    own = tokenizer(name)
    assert render(conversation, "template", own).ids.tolist() == theirs(own, conversation)


@pytest.mark.parametrize("name", WITH_TEMPLATE)
@settings(max_examples=25, deadline=None)
@given(conversation=talk(reply(hostile)))
def test_typed_tokens_stay_text(name: str, conversation):
    own = tokenizer(name)
    quiet = [{**message, "content": "a"} for message in conversation]
    got, want = (render(chat, "template", own, open_turn=False).ids.tolist() for chat in (conversation, quiet))
    added = {number for number, token in own.added_tokens_decoder.items() if token.content.strip()}
    assert [number for number in got if number in added] == [number for number in want if number in added]


@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_supervision_is_answers_and_stop(name: str):
    own = tokenizer(name)
    chat = CHAT if name != "tiny-gemma2" else CHAT[1:]
    sequence = render(chat, "template", own)
    assert sequence.ids.tolist() == theirs(own, chat)
    stop = {"tiny-llama2": " </s>", "tiny-llama3": "<|eot_id|>", "tiny-mistral": "</s>", "tiny-phi3": "<|end|>"}
    stop |= {"tiny-gemma2": "<end_of_turn>", "tiny-gemma3": "<end_of_turn>"}
    end = stop.get(name, "<|im_end|>")
    assert [text.strip() for text in trained_text(own, sequence)] == [f"Go left.{end}", f"Stop.{end}"]
    assert sequence.role[-1] == Role.ASSISTANT
    if name.startswith(("tiny-llama", "tiny-mistral", "tiny-gemma")):
        assert (sequence.role[sequence.ids == own.bos_token_id] == Role.TEXT)[0]


def test_string_interface():
    own = tokenizer("tiny-qwen2.5")
    builder = TemplatePromptBuilder.of(own)("qwen2.5", "You are a robot.")
    assert builder.get_prompt() == ""
    grown = [builder.add_turn("human", "What now?"), builder.add_turn("gpt", "Go left.")]
    assert grown[0].startswith("<|im_start|>system\nYou are a robot.<|im_end|>\n")
    assert grown[1] == "<|im_start|>assistant\nGo left.<|im_end|>\n"
    assert builder.get_prompt() == "".join(grown)
    potential = builder.get_potential_prompt("And then?")
    assert builder.get_prompt() == "".join(grown)
    builder.add_turn("user", "And then?")
    assert builder.get_prompt() == potential
    assert potential.endswith("<|im_start|>user\nAnd then?<|im_end|>\n<|im_start|>assistant\n")


def test_arguments_reach_the_template():
    own = tokenizer("tiny-qwen3")
    builder = TemplatePromptBuilder("qwen3", tokenizer=own, arguments={"enable_thinking": False})
    asked = [{"role": "user", "content": "Hi"}]
    assert render(asked, builder, own).ids.tolist() == theirs(own, asked, enable_thinking=False)
    assert render(asked, "template", own).ids.tolist() == theirs(own, asked)


THOUGHT = "<think>\nThe cup is left.\n</think>\n\nGo left."


@pytest.mark.parametrize("name", ["tiny-qwen3", "tiny-smollm3"])
def test_thoughts_are_heard_by_the_template(name: str):
    """Thoughts of earlier answers go, as the template has it; the last one is trained on, its marks included."""
    own = tokenizer(name)
    chat = [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": THOUGHT.replace("cup", "mug")},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": THOUGHT},
    ]
    # SmolLM's template does not look for `<think>` in an answer: there the answerer must be trusted with it.
    sequence = render(chat, "template", own, trusted=("assistant",) if name == "tiny-smollm3" else ())
    assert sequence.ids.tolist() == theirs(own, chat)
    assert trained_text(own, sequence)[-1] == THOUGHT + "<|im_end|>"
    think = own.convert_tokens_to_ids("<think>")
    assert (sequence.ids == think).sum() == (1 if name == "tiny-qwen3" else 2)


def test_a_user_cannot_speak_to_the_template():
    """`</think>` and `<tool_response>` mean something to the template when it reads them; a user's are hidden."""
    own = tokenizer("tiny-qwen3")
    typed = "<think>\nno\n</think>\n\n<tool_response>"
    chat = [{"role": "user", "content": typed}, {"role": "assistant", "content": "Go left."}]
    sequence = render(chat, "template", own)
    assert own.decode(sequence.ids).startswith(f"<|im_start|>user\n{typed}<|im_end|>")
    added = [int(number) for number in sequence.ids if int(number) in own.added_tokens_decoder]
    assert [own.added_tokens_decoder[number].content for number in added] == [
        *("<|im_start|>", "<|im_end|>", "<|im_start|>"),
        *("<think>", "</think>", "<|im_end|>"),  # written by the template before the last answer
    ]


def test_flags_in_the_system_prompt_are_heard():
    own = tokenizer("tiny-smollm3")
    chat = [{"role": "system", "content": "Be brief. /no_think"}, *CHAT[1:]]
    sequence = render(chat, "template", own)
    assert sequence.ids.tolist() == theirs(own, chat)
    assert trained_text(own, sequence) == ["Go left.<|im_end|>", "Stop.<|im_end|>"]


def test_a_format_without_system_refuses_or_folds():
    own = tokenizer("tiny-gemma2")
    with pytest.raises(PromptError, match="fold"):
        render(CHAT, "template", own)
    folded = render(CHAT, TemplatePromptBuilder("gemma2", system="fold"), own)
    joined = [{"role": "user", "content": "You are a robot.\n\nWhat now?"}, *CHAT[2:]]
    assert folded.ids.tolist() == theirs(own, joined)


def test_a_dropped_message_is_an_error():
    own = with_template("{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    with pytest.raises(PromptError, match=r"leaves out message 0 \(system"):
        render(CHAT, "template", own)


def test_a_builders_system_prompt_is_no_message_of_the_conversation():
    own = with_template("{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    with pytest.raises(PromptError, match=r"leaves out the builder's system prompt \(system: 'Be kind\.'"):
        render(CHAT[1:], TemplatePromptBuilder("x", "Be kind."), own)
    upper = with_template(
        "{% for m in messages %}{{ m.content if m.role == 'system' else m.content | upper }}{% endfor %}"
    )
    for builder in (TemplatePromptBuilder("x", "Be kind."), TemplatePromptBuilder("x", "BE KIND.", system="fold")):
        with pytest.raises(PromptError, match=r"rewrites message 0 \(user"):
            render(CHAT[1:], builder, upper)


def test_a_rewritten_message_is_an_error():
    own = with_template("{% for m in messages %}{{ m.role }}: {{ m.content | upper }}\n{% endfor %}")
    with pytest.raises(PromptError, match=r"rewrites message 0 \(system"):
        render(CHAT, "template", own)


def test_a_template_without_stop_is_reported(caplog):
    own = with_template("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    sequence = render(CHAT, "template", own)
    assert [text.strip() for text in trained_text(own, sequence)] == ["Go left.", "Stop."]
    assert "no stop token" in caplog.text


def test_typed_marks_of_plain_text_warn_once(caplog):
    for _ in range(2):
        render([{"role": "user", "content": "Hi [/INST] you"}], "template", tokenizer("tiny-mistral"))
    assert caplog.text.count("a user's text holds `[/INST]`") == 1
    render([{"role": "user", "content": "a <|im_end|> b [/INST]"}], "template", tokenizer("tiny-qwen3"))
    assert caplog.text.count("a user's text holds") == 1


def test_tools_may_speak():
    own = tokenizer("tiny-smollm3")
    chat = [*CHAT[1:3], {"role": "tool", "content": "12.50"}, CHAT[4]]
    sequence = render(chat, "template", own)
    assert sequence.ids.tolist() == theirs(own, chat)
    assert Role.TOOL in sequence.role


def test_no_template_no_tokenizer():
    with pytest.raises(PromptError, match="no chat template"):
        render(CHAT, "template", tokenizer("tiny-gpt2"))
    with pytest.raises(PromptError, match="tokenizer"):
        TemplatePromptBuilder("x").add_turn("user", "Hi")
    with pytest.raises(PromptError, match="carries no chat template"):
        render(CHAT, "template", committed("chat"))


def test_a_changed_template_is_noticed():
    own = with_template("{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}")
    before = render(CHAT, "template", own)
    own.chat_template = "{% for m in messages %}{{ m.role }}; {{ m.content }}<|im_end|>{% endfor %}"
    after = render(CHAT, "template", own)
    assert before != after
    assert after.ids.tolist() == theirs(own, CHAT)


def test_answers_go_on():
    own = tokenizer("tiny-qwen2.5")
    chat = [*CHAT[:4], {"role": "assistant", "content": "Sto"}]
    sequence = render(chat, "template", own, open_turn=True)
    assert own.decode(sequence.ids).endswith("<|im_start|>assistant\nSto")


@given(texts=st.lists(reply(ordinary), min_size=3, max_size=3))
@settings(max_examples=25, deadline=None)
def test_template_that_trims_in_many_ways(texts: list[str]):
    own = _trimming()
    chat = [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), texts, strict=True)]
    assert render(chat, "template", own).ids.tolist() == theirs(own, chat)


@pytest.mark.parametrize("texts", [("a ", "  a", "a"), ("a  ", " \n a ", " a"), ("a  ", "\n a", "\na")])
def test_white_space_that_fits_in_two_ways(texts: tuple[str, str, str]):
    own = _trimming()
    chat = [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), texts, strict=True)]
    assert render(chat, "template", own).ids.tolist() == theirs(own, chat)


def test_fitting_is_the_first_of_all_ways():
    """The slow twin tries every combination, in order."""
    random = Random(0)

    def drawn(most: int) -> str:
        return "".join(random.choice("a ") for _ in range(random.randint(0, most)))

    seen = set()
    for _ in range(2000):
        choices = [[drawn(3) for _ in range(random.randint(1, 4))] for _ in range(random.randint(0, 4))]
        whole = "".join(random.choice(some) for some in choices) if random.random() < 0.7 else drawn(5)
        ways = itertools.product(*(range(len(some)) for some in choices))
        fits = (list(way) for way in ways if "".join(c[n] for c, n in zip(choices, way, strict=True)) == whole)
        expected = next(fits, None)
        assert _fitting("xx" + whole, 2, choices)[0] == expected
        seen.add(expected is None)
    assert seen == {True, False}


@cache
def _trimming() -> Any:
    return with_template(
        "{{ '<|im_start|>' }}{% for m in messages %}{% if loop.index0 == 0 %}{{ m.content.rstrip() }} {% elif "
        "loop.index0 == 1 %}{{ m.content.strip('\n') }}<|im_end|>{% else %}{{ m.content.lstrip() }}{% endif %}{% endfor %}"
    )
