"""Conversations: what `render` gives, for every row; supervision exactly the answers; faults with their place."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vertebra.data.encode.chat import ChatEncoder, ImageFeatures
from vertebra.data.encode.prepare import prepare
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import InOrder, Packed
from vertebra.data.read.labels import Labels
from vertebra.data.samples.causal import fitted
from vertebra.errors import DataError, TooLongError, UnknownNameError
from vertebra.model.encoders.images import Preparation
from vertebra.prompt.rendering import render
from vertebra.sequence.tokens import Role

from .tokenizers import tokenizer_of

SYSTEM = {"role": "system", "content": "You are a robot."}
TURNS = [
    {"role": "user", "content": "What now?"},
    {"role": "assistant", "content": "Go left."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "Go right."},
]
BUILDERS = {"tiny-llama2": "llama2-chat", "tiny-qwen2.5": "chatml", "tiny-mistral": "mistral-instruct"}


def rows(system: bool):
    return [
        {"messages": [*([SYSTEM] if system else []), *TURNS]},
        {"messages": TURNS[:2]},
        {"messages": [*TURNS[:2], TURNS[2]]},
    ]


@pytest.mark.parametrize("name", BUILDERS)
def test_rows_are_what_render_gives(name, jsonl, tmp_path):
    tokenizer, builder = tokenizer_of(name), BUILDERS[name]
    given = rows(system=name != "tiny-mistral")
    path = jsonl(given)
    for cache in (False, tmp_path / "c", tmp_path / "c"):
        table = prepare(path, ChatEncoder(tokenizer, builder), cache=cache)
        for index, row in enumerate(given):
            expected = render(row["messages"], builder, tokenizer, open_turn=False)
            assert table.sequence(index) == expected
            assert table.sequence(index).supervised > 0


@pytest.mark.parametrize("name", BUILDERS)
def test_exactly_the_answers_and_their_stop_are_supervised(name):
    tokenizer = tokenizer_of(name)
    table = prepare([{"messages": TURNS}], ChatEncoder(tokenizer, BUILDERS[name]), cache=False)
    sequence = table.sequence(0)
    trained = sequence.ids[sequence.weight > 0]
    text = tokenizer.decode(trained).replace(tokenizer.eos_token, "|").replace("<|im_end|>", "|")
    assert [part.strip() for part in text.split("|")] == ["Go left.", "Go right.", ""]
    assert np.array_equal(sequence.target, sequence.ids)
    assert set(sequence.role[sequence.weight > 0].tolist()) == {int(Role.ASSISTANT)}


def test_roles_and_message_weights(llama):
    both = prepare([{"messages": TURNS[:2]}], ChatEncoder(llama, "pure", roles=("user", "assistant")), cache=False)
    assert "What now?" in llama.decode(both.sequence(0).ids[both.sequence(0).weight > 0])
    half = prepare([{"messages": TURNS, "weights": [1, 0, 1, 0.5]}], ChatEncoder(llama, "pure"), cache=False).sequence(
        0
    )
    assert set(half.weight.tolist()) == {0.0, 0.5}
    assert llama.decode(half.ids[half.weight > 0]).strip() == "Go right.</s>"
    scaled = prepare([{"messages": TURNS, "weight": 2}], ChatEncoder(llama, "pure"), cache=False).sequence(0)
    assert set(scaled.weight.tolist()) == {0.0, 2.0}


def test_every_spelling_becomes_the_same_sequence(llama):
    spelled = [
        {"messages": TURNS[:2]},
        {"conversations": [{"from": "human", "value": "What now?"}, {"from": "gpt", "value": "Go left."}]},
        {"instruction": "What now?", "output": "Go left."},
        {"prompt": "What now?", "completion": "Go left."},
    ]
    tables = [prepare([row], ChatEncoder(llama, "vicuna-v15"), cache=False) for row in spelled]
    assert all(table.sequence(0) == tables[0].sequence(0) for table in tables)


def test_faults_are_found_one_by_one(llama, jsonl):
    path = jsonl(
        [
            {"messages": TURNS[:2]},
            {"messages": [TURNS[0], TURNS[0], TURNS[1]]},
            {"messages": [TURNS[0]]},
            {"messages": [TURNS[0], {**TURNS[1], "weight": 0}]},
            {"messages": [{"role": "user", "content": "  "}, TURNS[1]]},
            {"messages": TURNS},
        ]
    )
    with pytest.raises(DataError) as caught:
        prepare(path, ChatEncoder(llama, "llama2-chat"), cache=False)
    text = str(caught.value)
    assert "4 of 6 rows" in text
    assert f"{path}:2: cannot be rendered: message 1 is from `user`" in text
    assert f"{path}:3: no assistant turn" in text
    assert f"{path}:4: no supervised token" in text
    assert f"{path}:5: cannot be rendered" in text
    table = prepare(path, ChatEncoder(llama, "llama2-chat"), cache=False, on_bad="skip")
    assert [table.where(index) for index in range(len(table))] == [f"{path}:1", f"{path}:6"]
    with pytest.raises(UnknownNameError, match="Did you mean `llama2-chat`"):
        ChatEncoder(llama, "llama2-chta")


def test_what_users_type_stays_text(llama):
    typed = [{"role": "user", "content": "I type </s> here"}, TURNS[1]]
    table = prepare([{"messages": typed}], ChatEncoder(llama, "pure"), cache=False)
    assert (table.sequence(0).ids == llama.eos_token_id).sum() == 1


def test_options_are_other_entries(llama):
    prints = {
        prepare([{"messages": TURNS}], encoder, cache=False).fingerprint()
        for encoder in (
            ChatEncoder(llama, "pure"),
            ChatEncoder(llama, "vicuna-v15"),
            ChatEncoder(llama, "pure", roles=("user", "assistant")),
            ChatEncoder(llama, "pure", sizes={"image": 4}),
        )
    }
    assert len(prints) == 4


@pytest.fixture
def llava(tmp_path, jsonl):
    for name, color in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        Image.new("RGB", (20, 10), color).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "red.png").read_bytes()[:40])

    def write(*images: str | None):
        made = []
        for image in images:
            asked = "<image>\nWhat color?" if image else "What is red?"
            row = {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": "It is a color."}]}
            made.append(row | ({"image": f"{image}.png"} if image else {}))
        return jsonl(made, "llava.jsonl")

    return write


def test_images_and_conversation(llama, llava, tmp_path):
    path = llava("red", None, "blue")
    encoder = ChatEncoder(llama, "vicuna-v15", sizes={"image": 4})
    for cache in (False, tmp_path / "c"):
        table = prepare(path, encoder, images=tmp_path, cache=cache)
        assert [table.sequence(index).slot_count("image") for index in range(3)] == [4, 0, 4]
        assert table.extra(2)["images"] == [str(tmp_path / "blue.png")]
        collator = Collator(0, features=ImageFeatures(Preparation(size=8)))
        for sampler in (InOrder(3), Packed(2, 512)):
            (batch,) = Loader(table, sampler, collator, pin_memory=False)
            pixels = batch.features["image"]["values"]
            assert tuple(pixels.shape) == (2, 3, 8, 8)
            assert {tuple(pixel.tolist()) for pixel in pixels[:, :, 0, 0]} == {(255, 0, 0), (0, 0, 255)}
            assert int((batch.slot[..., 0] >= 0).sum()) == 8
            assert (batch.weights[batch.slot[..., 0] >= 0] == 0).all()
    anchored = ChatEncoder(llama, "vicuna-v15", sizes={"image": 4}, anchored=("image",))
    sequence = prepare(path, anchored, images=tmp_path, cache=False).sequence(0)
    assert sequence.slot[1:5, 1].tolist() == [0, 1, 2, 3]


def test_images_that_are_missing_broken_or_too_many(llama, llava, tmp_path):
    path = llava("red", "broken")
    table = prepare(path, ChatEncoder(llama, "pure", sizes={"image": 4}), cache=False)
    collator = Collator(0, features=ImageFeatures(Preparation(size=8)))
    with pytest.raises(DataError, match=r"broken\.png"):
        list(Loader(table, InOrder(2), collator, pin_memory=False))
    with pytest.raises(DataError, match="say how many slots"):
        prepare(path, ChatEncoder(llama, "pure"), cache=False)
    with pytest.raises(DataError, match=r"llava\.jsonl:2: missing image: gone\.png"):
        prepare(llava("red", "gone"), ChatEncoder(llama, "pure", sizes={"image": 4}), cache=False)
    in_memory = {"messages": [{"role": "user", "content": [{"type": "image", "image": b"..."}]}, TURNS[1]]}
    with pytest.raises(DataError, match="in memory"):
        prepare([in_memory], ChatEncoder(llama, "pure", sizes={"image": 4}), cache=False)


def test_the_cache_knows_where_images_lie(llama, llava, tmp_path, monkeypatch):
    """The same rows in two folders have other images; an image that was missing may have come."""
    first = llava("red")
    encoder, cache = ChatEncoder(llama, "pure", sizes={"image": 4}), tmp_path / "c"
    other = tmp_path / "other"
    other.mkdir()
    (other / first.name).write_bytes(first.read_bytes())
    (other / "red.png").write_bytes((tmp_path / "blue.png").read_bytes())
    tables = [prepare(path, encoder, cache=cache) for path in (first, other / first.name)]
    assert [table.extra(0)["images"] for table in tables] == [[str(tmp_path / "red.png")], [str(other / "red.png")]]
    for folder in (tmp_path, other):
        monkeypatch.chdir(folder)
        table = prepare(first.name, encoder, cache=cache, images=".")
        assert table.extra(0)["images"] == [str(folder / "red.png")]
    (other / "red.png").rename(other / "late.png")
    monkeypatch.chdir(tmp_path)
    path = llava("late")
    for _ in range(2):
        with pytest.raises(DataError, match=r"missing image: late\.png"):
            prepare(path, encoder, cache=cache)
    (other / "late.png").rename(tmp_path / "late.png")
    assert prepare(path, encoder, cache=cache).extra(0)["images"] == [str(tmp_path / "late.png")]


def test_conversations_that_are_too_long(llama):
    table = prepare([{"messages": TURNS}, {"messages": TURNS[:2]}], ChatEncoder(llama, "pure"), cache=False)
    with pytest.raises(TooLongError, match="sample 0"):
        fitted(table, int(table.lengths[1]))
    assert len(fitted(table, int(table.lengths[1]), too_long="drop")) == 1


def test_pairs_as_questions(llama):
    labels = Labels(["no", "yes"])
    encoder = ChatEncoder(llama, "pure", labels=labels, question="{first} / {second}?")
    data = [{"sentence1": "a b", "sentence2": "c", "label": 1}, {"sentence1": "a", "sentence2": "b", "label": "no"}]
    table = prepare(data, encoder, cache=False)
    texts = [llama.decode(table.sequence(index).ids) for index in range(2)]
    assert "a b / c?" in texts[0]
    answers = [llama.decode(s.ids[s.weight > 0]).strip() for s in map(table.sequence, range(2))]
    assert answers == ["yes</s>", "no</s>"]
    with pytest.raises(DataError, match="label out of range: 2"):
        prepare([{**data[0], "label": 2}], encoder, cache=False)
