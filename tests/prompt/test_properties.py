"""Every builder on every tokenizer: ordinary text gives the whole string's ids; typed control tokens stay text."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.prompt.tokenizers import MAKERS, plain, tokenizer
from vertebra.prompt.registry import prompt_builder, prompt_builder_names
from vertebra.prompt.rendering import render
from vertebra.prompt.tokenizer import FastTokenizer, tokenizer_of

BUILDERS = [name for name in prompt_builder_names() if name != "template"]
WORDS = (
    *("a", "b", "the", "cup", " ", "  ", "    ", "\n", "\n\n", "\t", ":", ".", "?", "12", "3", "(", "-", "'s", "ing"),
    *("Acting", "é", "e\u0301", "茶", "🤖", "ß", "\u200d", "ﬁ", "\U00100001", "\U0010f0fe", "/", "_"),
)
CONTROL = (
    *("<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<bos>", "<|endoftext|>", "<end_of_turn>"),
    *(
        "<|end|>",
        "<|user|>",
        "<mask>",
        "<ACT>",
        "<image>",
        "<tool_call>",
        "gripper",
        "＜ACT＞",
        "</",
        "s>",
        "<",
        "|",
        "[INST]",
    ),
)
ordinary = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map("".join)
hostile = st.lists(st.sampled_from((*WORDS, *CONTROL)), min_size=1, max_size=8).map("".join)


def reply(text):
    return text.filter(lambda value: bool(value.strip()))


def talk(texts):
    roles = ("user", "assistant")
    return st.lists(texts, min_size=1, max_size=4).map(
        lambda reply: [{"role": roles[i % 2], "content": text} for i, text in enumerate(reply)]
    )


@functools.cache
def adapter(name: str) -> FastTokenizer:
    found = tokenizer_of(tokenizer(name))
    assert isinstance(found, FastTokenizer)
    return found


def whole(name: str, text: str) -> list[int]:
    return plain(name).encode(text, add_special_tokens=False).ids


def controls(name: str) -> set[int]:
    """Ids of added tokens that are more than white space."""
    added = plain(name).get_added_tokens_decoder().items()
    return {number for number, token in added if token.content.strip()}


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), builder=st.sampled_from(BUILDERS))
def test_ordinary_text_gives_the_ids_of_the_whole_string(name: str, data, builder: str):
    conversation = data.draw(talk(reply(ordinary)))
    written = prompt_builder(builder)("x")
    for message in conversation:
        written.add_turn(message["role"], message["content"])
    want = whole(name, written.get_prompt())
    got = render(conversation, builder, tokenizer(name)).ids.tolist()
    if adapter(name).facts().prefix:
        assert got[0] == 1  # BOS, which the tokenizer adds by itself
        want = [1, *want]
        assert got == want
    else:
        assert got in (want, [1, *want])  # the format's BOS is put in front where the tokenizer knows it


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), builder=st.sampled_from(BUILDERS))
def test_typed_tokens_stay_text(name: str, data, builder: str):
    conversation = data.draw(talk(reply(hostile)))
    quiet = [{**message, "content": "a"} for message in conversation]
    got = render(conversation, builder, tokenizer(name), open_turn=False)
    want = render(quiet, builder, tokenizer(name), open_turn=False)
    allowed = controls(name)
    unknown = plain(name).token_to_id("<unk>")
    there = [number for number in got.ids.tolist() if number in allowed and number != unknown]
    assert there == [number for number in want.ids.tolist() if number in allowed]


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=30, deadline=None)
@given(texts=st.lists(hostile, min_size=1, max_size=5))
def test_guarded_copy_agrees_on_ordinary_text(name: str, texts: list[str]):
    """The slow path alone, forced: where nothing is typed it gives what the tokenizer gives."""
    text = "".join(texts)
    found = adapter(name)
    own, _ = found.encode([text, text], [(), ()])
    guarded = found._encode_guarded(text, (), own)  # all trusted: marks are tokens, as ever
    encoded = plain(name).encode(text, add_special_tokens=False)
    assert own.ids.tolist() == encoded.ids
    assert guarded.ids.tolist() == encoded.ids
    assert (guarded.start == own.start).all()
    assert (guarded.stop == own.stop).all()


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=30, deadline=None)
@given(data=st.data(), builder=st.sampled_from(BUILDERS))
def test_supervision_is_exactly_the_answers_and_their_stop(name: str, data, builder: str):
    """By the plain rule: a token is trained on if one of its characters is an answer's or its stop mark's."""
    conversation = data.draw(talk(reply(ordinary)))
    cls = prompt_builder(builder)
    spans, before = [], ""
    written = cls("x")
    for message in conversation:
        written.add_turn(message["role"], message["content"])
        if message["role"] == "assistant":
            template = cls.template
            end = len(written.prompt) - len(template.answer[1].removeprefix(template.stop))
            # an open prompt ends without the blanks before an answer: they are the answer's to say
            first = len(before.rstrip()) if template.trims_open else len(before) + len(template.answer[0])
            spans.append((first, end))
        before = written.prompt
    sequence = render(conversation, builder, tokenizer(name))
    encoded = plain(name).encode(written.get_prompt(), add_special_tokens=False)
    start = len(sequence) - len(encoded.ids)
    for number, (a, b) in enumerate(encoded.offsets):
        piece = written.get_prompt()[a:b]
        if piece.strip() and encoded.ids[number] in controls(name):  # a token may swallow space; it is not its own
            a, b = a + len(piece) - len(piece.lstrip()), b - len(piece) + len(piece.rstrip())
        trained = any(a < stop and max(b, a + 1) > first for first, stop in spans)
        assert (sequence.weight[start + number] > 0) == trained
    assert sequence.weight[:start].sum() == 0
