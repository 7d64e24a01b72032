"""Reading conversations: parts become text with splices, and every mistake is told with its place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.data.read.conversations import alpaca, sharegpt
from vertebra.errors import PromptError
from vertebra.prompt.content import Content, Splice, Stretch
from vertebra.prompt.conversation import Message, MessageReader, check_order, role_name, turns_of
from vertebra.sequence.roles import Role

PAGE = {"type": "page", "lines": [{"text": "Total 5", "box": [0, 0, 9, 9]}, {"text": "", "box": [1, 1, 2, 2]}]}


def read(content, **options) -> Content:
    return MessageReader(**options).read([{"role": "user", "content": content}])[0].content


@pytest.mark.parametrize(
    ("name", "role"),
    [("user", "user"), ("human", "user"), ("gpt", "assistant"), ("Bot", "assistant"), ("model", "assistant"),
     ("developer", "system"), (" function ", "tool"), ("observation", "tool")],
)  # fmt: skip
def test_one_table_of_who_speaks(name: str, role: str):
    """What a data set calls a speaker, a prompt calls so too."""
    assert role_name(name) == role
    rows = [{"from": "human", "value": "a"}, {"from": name, "value": "b"}, {"from": "gpt", "value": "c"}]
    assert [turn["role"] for turn in sharegpt({"conversations": rows}, ("conversations",)).messages][1] == role


def test_questions_and_answers_in_turn():
    turns = turns_of(["a", "b"], ["c"], system="s")
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        ("system", "s"), ("user", "a"), ("assistant", "c"), ("user", "b"),
    ]  # fmt: skip
    assert turns_of(["a"], []) == [{"role": "user", "content": "a"}]
    assert alpaca({"instruction": "a", "output": "c"}, ("instruction", "output")).messages == tuple(
        turns_of(["a"], ["c"])
    )


def test_text_and_parts():
    content = read(
        [
            {"type": "text", "text": "See "},
            {"type": "image", "name": "image:wrist", "url": "ignored.png"},
            "this",
            {"type": "vector"},
            PAGE,
            {"type": "action", "ids": np.array([5, 6])},
            {"type": "action", "count": 3},
        ],
        sizes={"image": 4},
    )
    assert content.text == "See thisTotal 5\n\n"
    assert content.splices == (
        (4, Splice(Role.IMAGE, segment="image:wrist", count=4)),
        (8, Splice(Role.VECTOR, segment="proprio", count=1)),
        (15, Splice(Role.PAGE, segment="boxes", count=1)),
        (16, Splice(Role.PAGE, segment="boxes", count=1)),
        (17, Splice(Role.ACTION, ids=(5, 6))),
        (17, Splice(Role.ACTION, segment="action", count=3)),
    )
    assert content.pages == (Stretch(8, 17),)


def test_sizes_by_name_then_by_kind_then_by_part():
    sizes = {"image": 4, "image:wrist": 2}
    for part, count in [({}, 4), ({"name": "image:wrist"}, 2), ({"name": "image:left"}, 4), ({"count": 9}, 9)]:
        assert read([{"type": "image", **part}], sizes=sizes).splices[0][1].count == count


def test_roles_weights_and_trust():
    conversation = [
        {"role": "system", "content": "s"},
        {"role": "human", "content": "u"},
        {"role": "gpt", "content": "a", "weight": 0.5},
    ]
    messages = MessageReader(roles=("gpt", "user"), trusted=("gpt",)).read(conversation)
    assert [(m.role, m.weight, m.plain) for m in messages] == [
        ("system", 0.0, True),
        ("user", 1.0, True),
        ("assistant", 0.5, False),
    ]


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ([], "conversation is empty"),
        ("hello", "list of messages"),
        ({"role": "user", "content": "x"}, "list of messages"),
        (["hello"], "message 0 is 'hello'"),
        ([{"role": "user"}], "needs `role` and `content`"),
        ([{"role": "user", "content": "x", "contents": 1}], "key `contents`. Did you mean `content`"),
        ([{"role": "usr", "content": "x"}], "unknown role `usr`. Did you mean `user`"),
        ([{"role": 3, "content": "x"}], "unknown role `3`"),
        ([{"role": "user", "content": 7}], "expected text or a list of parts"),
        ([{"role": "user", "content": ""}], r"message 0 \(user\) is empty"),
        ([{"role": "user", "content": [{"type": "text", "text": " "}]}], "is empty"),
        ([{"role": "user", "content": [{"text": "x"}]}], "expected a dict with a `type`"),
        ([{"role": "user", "content": [{"type": "imag"}]}], "unknown part type `imag`.*Did you mean `image`"),
        ([{"role": "user", "content": [{"type": "text"}]}], "expected a string under `text`"),
        ([{"role": "user", "content": [{"type": "image"}]}], "nothing gives how many slots"),
        ([{"role": "user", "content": [{"type": "image", "count": 0}]}], "whole number from 1 on"),
        ([{"role": "user", "content": [{"type": "image", "count": True}]}], "whole number from 1 on"),
        ([{"role": "user", "content": [{"type": "image", "count": 2.0}]}], "whole number from 1 on"),
        ([{"role": "user", "content": [{"type": "image", "count": 2, "name": ""}]}], "segment name"),
        ([{"role": "user", "content": [{"type": "page"}]}], "list of {'text', 'box'}"),
        ([{"role": "user", "content": [{"type": "page", "lines": [{"text": "a\nb"}]}]}], "line 0 of a page"),
        ([{"role": "user", "content": [{"type": "action", "ids": [1, -2]}]}], r"holds \[-2\]"),
        ([{"role": "user", "content": [{"type": "action", "ids": "12"}]}], "list of integers"),
        ([{"role": "user", "content": [{"type": "action", "ids": [1], "count": 1}]}], "both `ids` and `count`"),
        ([{"role": "user", "content": "x", "weight": -1}], "weight -1"),
        ([{"role": "user", "content": "x", "weight": float("nan")}], "weight nan"),
    ],
)
def test_mistakes(conversation, message: str):
    with pytest.raises(PromptError, match=message):
        MessageReader().read(conversation)


def test_a_misspelt_size_offers_the_nearest():
    with pytest.raises(PromptError, match="Did you mean `image:wrist`"):
        read([{"type": "image", "name": "image:rist"}], sizes={"image:wrist": 4})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": {"image": 0}}, r"sizes\['image'\] is 0"),
        ({"roles": "assistant"}, "not a string"),
        ({"roles": ("asistant",)}, "Did you mean `assistant`"),
        ({"trusted": ("human",)}, "cannot be trusted"),
    ],
)
def test_bad_options(options, message: str):
    with pytest.raises(PromptError, match=message):
        MessageReader(**options)


def test_order_with_tools():
    def order(*roles: str, **options: bool) -> None:
        check_order([Message(role, Content("x"), number=number) for number, role in enumerate(roles)], **options)

    order("system", "user", "assistant", "user")
    order("user", "assistant", "tool", "tool", "assistant", "user", tools=True)
    order("user", "assistant", "tool", "user", tools=True)
    for roles in (("user", "tool"), ("tool",)):
        with pytest.raises(PromptError, match="a tool answers an assistant"):
            order(*roles, tools=True)


pieces = st.lists(st.sampled_from([" ", "\n", "a", "b c", "<image>", "<im", "age>", None]), max_size=7)


def content_of(parts: list[str | None]) -> Content:
    """`None` is a splice."""
    return read([{"type": "image", "count": 1} if part is None else part for part in [*parts, None]])


@settings(max_examples=50, deadline=None)
@given(parts=pieces)
def test_cleaning_moves_splices_with_their_text(parts: list[str | None]):
    """The plain way: put a mark that no cleaning touches where splices are, clean, and look where it stands."""
    content = content_of(parts)
    assert content.stripped().text == content.text.strip()
    assert content.without("<image>").text == content.text.replace("<image>", "")
    for cleaned in (content.stripped(), content.without("<image>")):
        places = [at for at, _ in cleaned.splices]
        assert len(places) == len(content.splices)
        assert places == sorted(places)
        assert all(0 <= at <= len(cleaned.text) for at in places)
    marked = "".join("\0" if part is None else part for part in [*parts, None])
    if "<image>" not in content.text:
        inside = [at for at, _ in content.stripped().splices]
        text = content.stripped().text
        for at, mark in zip(inside, [i for i, c in enumerate(marked) if c == "\0"], strict=True):
            before = marked[:mark].replace("\0", "").lstrip()
            assert text[:at] == before[:at]
            assert before[at:].strip() == ""


def test_cutting_moves_pages():
    content = read([{"type": "text", "text": "  ab"}, PAGE, {"type": "text", "text": "cd  "}])
    stripped = content.stripped()
    assert stripped.text == "abTotal 5\n\ncd"
    assert stripped.pages == (Stretch(2, 11),)
    assert [at for at, _ in stripped.splices] == [9, 10]
