"""Formats: each spelling is recognised and read; each way of being wrong is told with file and line."""

from __future__ import annotations

import pytest

from vertebra.data.read.conversations import Conversation
from vertebra.data.read.formats import Pair, Reader, Text, detect
from vertebra.data.read.rows import Fault, Row
from vertebra.errors import DataError, UnknownNameError

ASKED = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"})

SPELLINGS = {
    "messages": {"messages": list(ASKED)},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    "alpaca": {"instruction": "Hi", "input": "", "output": "Hello", "text": "ignored"},
    "prompt_completion": {"prompt": "Hi", "completion": "Hello"},
}


def read(fields, reader: Reader | None = None, line: int = 3):
    return (reader or Reader())(Row(fields, "data.jsonl", line))


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_says_the_same_conversation(name):
    reader = Reader()
    assert read(SPELLINGS[name], reader) == Conversation(ASKED)
    assert reader.name == name
    assert detect(SPELLINGS[name]).name == name


def test_text_and_pairs():
    assert read({"text": "a"}) == Text("a")
    assert read({"content": "a", "weight": "2"}) == Text("a", 2.0)
    assert read({"sentence1": "a", "sentence2": "b", "label": 1}) == Pair("a", "b", 1)
    assert read({"premise": "a", "hypothesis": "b"}) == Pair("a", "b", None)
    assert read({"sentence": "a", "label": "good"}) == Pair("a", None, "good")
    assert read({"text": "a", "label": 1}) == Text("a")
    assert read({"text": "a", "label": 1}, Reader("pairs")) == Pair("a", None, 1)


def test_more_of_each_spelling():
    system = {"role": "system", "content": "Be brief."}
    assert read({"instruction": "Add", "input": "1 2", "output": "3"}).messages[0]["content"] == "Add\n\n1 2"
    assert read({**SPELLINGS["alpaca"], "system": "Be brief."}).messages[0] == system
    assert read({**SPELLINGS["sharegpt"], "system": "Be brief."}).messages[0] == system
    both = {"prompt": [ASKED[0]], "completion": [ASKED[1]]}
    assert read(both) == Conversation(ASKED)
    weighed = read({"messages": list(ASKED), "weights": [0, 2]})
    assert [message["weight"] for message in weighed.messages] == [0.0, 2.0]


def test_llava_images(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    row = {
        "image": "a.png",
        "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dog."}],
    }
    reader = Reader(images=tmp_path)
    sample = read(row, reader)
    assert sample.messages[0]["content"] == [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    assert sample.images == (str(tmp_path / "a.png"),)
    assert reader.name == "llava"
    unmarked = {**row, "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A dog."}]}
    assert read(unmarked, reader).messages[0]["content"] == [{"type": "image"}, {"type": "text", "text": "What?"}]
    text_only = {"conversations": row["conversations"]}
    assert read(text_only, reader).messages[0]["content"] == "<image>\nWhat is it?"
    assert "missing image: b.png" in read({**row, "image": "b.png"}, reader).message
    assert "missing image: xxx" in read({**row, "image": "x" * 70_000}, reader).message
    assert len(read({**row, "image": "x" * 70_000}, reader).message) < 1000
    assert "images=FOLDER" in read({**row, "image": "b.png"}).message
    assert "2 images for 1" in read({**row, "image": ["a.png", "a.png"]}, reader).message
    question = [{"type": "image", "path": "a.png"}]
    parts = {"messages": [{"role": "user", "content": question}, ASKED[1]]}
    assert read(parts, Reader(images=tmp_path)).images == (str(tmp_path / "a.png"),)
    question.append({"type": "image"})
    assert "1 images for 2" in read(parts, Reader(images=tmp_path)).message
    with pytest.raises(DataError, match="does not exist"):
        Reader(images=tmp_path / "none")


BAD = {
    "no assistant turn": {"messages": [ASKED[0]]},
    "weights of the wrong length: 1 for 2": {"messages": list(ASKED), "weights": [1]},
    "expected a list of messages": {"messages": "Hi"},
    "an empty list": {"messages": []},
    "`content` of message 2 is null": {"messages": [ASKED[0], {"role": "assistant", "content": None}]},
    "Did you mean `rol`": {"messages": [{"rol": "user", "content": "x"}]},
    "Did you mean `assistant`": {"messages": [{"role": "assistent", "content": "x"}]},
    "bad weight": {"text": "a", "weight": -1},
    "`text` is null": {"text": None},
    "half a character: \\ud83d at 2": {"text": "a \ud83d"},
    "half a character: \\udc00 at 0": {"messages": [ASKED[0], {"role": "assistant", "content": "\udc00"}]},
    "a text part of message 1 is null": {"messages": [{"role": "user", "content": [{"type": "text"}]}, ASKED[1]]},
    "bad label": {"sentence1": "a", "sentence2": "b", "label": [1]},
    "no known format": {"mesages": []},
    "Did you mean `messages`": {"mesages": []},
}


@pytest.mark.parametrize("reply", BAD)
def test_bad_rows_are_faults_with_a_place(reply):
    fault = read(BAD[reply], line=7)
    assert isinstance(fault, Fault)
    assert fault.where == "data.jsonl:7"
    assert reply in fault.message


def test_mixed_formats_and_missing_columns():
    reader = Reader()
    read(SPELLINGS["alpaca"], reader)
    assert "looks like `messages`, the others are `alpaca`" in read(SPELLINGS["messages"], reader).message
    message = read({"instruction": "a", "ouput": "b"}, reader).message
    assert "missing column: `output`" in message
    assert "Did you mean `ouput`?" in message


def test_columns_by_other_names():
    reader = Reader(columns={"prompt": "question", "completion": "answer"})
    assert read({"question": "Hi", "answer": "Hello"}, reader) == Conversation(ASKED)
    assert "Did you mean `answr`" in read({"question": "Hi", "answr": "Hello"}, reader).message
    with pytest.raises(UnknownNameError, match="Did you mean `prompt`"):
        Reader(columns={"promt": "question"})
    with pytest.raises(UnknownNameError, match="Did you mean `alpaca`"):
        Reader("alpacca")
    assert Reader("llava").format.name == "sharegpt"
