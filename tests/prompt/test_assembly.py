"""What splices do to a sequence: slots in place and anchored, actions as ids, pages, blocks, segments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.prompt.samples import IMAGE, ask, llama, text
from tests.prompt.test_properties import ordinary
from tests.prompt.tokenizers import MAKERS, plain, tokenizer
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.prompt.registry import prompt_builder_names
from vertebra.prompt.rendering import render
from vertebra.sequence.roles import NO_TARGET, Role

BUILDERS = [name for name in prompt_builder_names() if name != "template"]


def tokens(sequence: Any, own: Any) -> list[str]:
    """Tokens, a slot as its segment."""
    names = [sequence.segments[segment] if segment >= 0 else None for segment, _ in sequence.slot]
    return [name or token for name, token in zip(names, own.convert_ids_to_tokens(sequence.ids), strict=True)]


def test_openvla_action_sample():
    """`In: …\\nOut:`, the lone `▁`, seven action ids, EOS; images right after BOS; only the answer is trained on."""
    own = llama()
    lone = own.convert_tokens_to_ids("▁")
    action = [950, 951, 952, 953, 954, 955, 956]
    chat = ask([IMAGE, text("What action should the robot take to lift it?")], [{"type": "action", "ids": action}])
    sequence = render(chat, "pure-legacy", own, {"image": 4}, anchored=("image",))
    question = own("In: What action should the robot take to lift it?\nOut:").input_ids
    pad = own.pad_token_id if own.pad_token_id is not None else own.eos_token_id
    assert sequence.ids.tolist() == [1, *[pad] * 4, *question[1:], lone, *action, 2]
    assert sequence.segments == ("image",)
    assert sequence.slot[:6].tolist() == [[-1, -1], [0, 0], [0, 1], [0, 2], [0, 3], [-1, -1]]
    assert sequence.target[1:5].tolist() == [NO_TARGET] * 4
    assert sequence.weight.nonzero()[0].tolist() == list(range(len(sequence) - 8, len(sequence)))
    assert sequence.role[-8:-1].tolist() == [Role.ACTION] * 7
    assert sequence.role[1:5].tolist() == [Role.IMAGE] * 4
    assert sequence.block.max() == 0
    assert sequence.position.tolist() == list(range(len(sequence)))


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("name", MAKERS)
def test_what_precedes_an_action_is_what_training_saw(name: str, builder: str):
    """The prompt of inference, id for id, although its last token may straddle the border (`▁`, ` \\n`)."""
    own = tokenizer(name)
    trained = render(ask("Go", [{"type": "action", "ids": [7, 8, 9]}]), builder, own)
    asked = render(ask("Go", [{"type": "action", "ids": []}]), builder, own, open_turn=True)
    assert [*asked.ids.tolist(), 7, 8, 9] == trained.ids.tolist()[: len(asked) + 3]
    begun = render(ask("Go", [{"type": "action", "ids": [7]}]), builder, own, open_turn=True)
    assert begun.ids.tolist() == [*asked.ids.tolist(), 7]


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_prompt_of_inference_is_the_start_of_training(builder: str):
    own = tokenizer("llama" if "phi" not in builder else "gpt2")
    asked = render(ask("What next?"), builder, own)
    trained = render(ask("What next?", "Go left."), builder, own)
    assert trained.ids.tolist()[: len(asked)] == asked.ids.tolist()
    assert trained.weight[: len(asked)].sum() == 0
    assert trained.weight[len(asked)] == 1


def test_action_slots_are_a_block_each():
    own = llama()
    chat = [*ask("Go", [{"type": "action"}]), *ask("Again", [{"type": "action", "count": 2}])]
    sequence = render(chat, "pure", own, {"action": 3})
    where = sequence.slot[:, 0] >= 0
    assert sequence.slot[where].tolist() == [[0, index] for index in range(5)]
    assert sequence.block[where].tolist() == [2, 2, 2, 3, 3]
    assert sequence.block[~where].max() == 0
    assert sequence.weight[where].max() == 0
    assert (sequence.ids[sequence.weight > 0] == own.eos_token_id).sum() == 2
    causal = render(chat, "pure", own, {"action": 3}, both_ways=())
    assert causal.block.max() == 0
    assert causal.ids.tolist() == sequence.ids.tolist()
    seen = render(ask([IMAGE, text("Go")]), "pure", own, {"image": 2}, both_ways=("image",))
    assert seen.block[seen.slot[:, 0] >= 0].tolist() == [2, 2]


def test_a_page_as_lines_with_box_slots():
    own = AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-gpt2"))
    lines = [{"text": "Total: 5", "box": [0, 0, 9, 9]}, {"text": "Tax:", "box": [1, 1, 2, 2]}]
    sequence = render(ask([IMAGE, {"type": "page", "lines": lines}, text("Sum?")]), "pure", own, {"image": 2})
    shown = tokens(sequence, own)
    assert [name for name in shown if name in ("image", "boxes")] == ["image", "image", "boxes", "boxes"]
    assert sequence.segments == ("image", "boxes")
    boxes = [number for number, name in enumerate(shown) if name == "boxes"]
    assert own.decode(sequence.ids[boxes[0] - 3 : boxes[0]]).endswith("5")
    assert sequence.role[boxes[0]] == sequence.role[boxes[0] - 1] == Role.PAGE
    assert "Tax" in own.decode(sequence.ids[boxes[0] + 1 : boxes[1]])
    kept = sequence.ids[sequence.slot[:, 0] < 0].tolist()
    assert kept == own("In: Total: 5\nTax:\nSum?\nOut:").input_ids


def test_a_token_across_a_splice_stands_where_it_is_seen():
    own = tokenizer("gpt2")
    joined = plain("gpt2").encode("In: a cup", add_special_tokens=False).tokens
    assert joined[-1] == "Ġcup"
    sequence = render(ask([text("a "), IMAGE, text("cup")]), "pure", own, {"image": 1}, open_turn=False)
    place = int(np.flatnonzero(sequence.slot[:, 0] == 0)[0])
    assert own.id_to_token(int(sequence.ids[place + 1])) == "Ġcup"
    chat = tokenizer("chat")
    page = {"type": "page", "lines": [{"text": "See!", "box": None}]}
    sequence = render(ask([page, text("x")]), "chatml", chat)
    place = int(np.flatnonzero(sequence.slot[:, 0] == 0)[0])
    assert chat.id_to_token(int(sequence.ids[place - 1])).startswith("!")


parts = st.lists(
    st.one_of(
        ordinary.map(text),
        st.just(IMAGE),
        st.just({"type": "vector"}),
        st.lists(st.integers(0, 99), max_size=3).map(lambda ids: {"type": "action", "ids": ids}),
        st.lists(ordinary.filter(lambda s: "\n" not in s), max_size=3).map(
            lambda lines: {"type": "page", "lines": [{"text": line, "box": None} for line in lines]}
        ),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), name=st.sampled_from(list(MAKERS)), builder=st.sampled_from(BUILDERS))
def test_splices_leave_the_texts_ids_alone(data, name: str, builder: str):
    """Taking slots and action ids out again gives the whole string's ids; counts and orders are as written."""
    reply = data.draw(parts)
    answer = data.draw(parts)
    sizes = {"image": 3}
    own = tokenizer(name)
    conversation = ask([text("q"), *reply], answer)
    sequence = render(conversation, builder, own, sizes)
    bare = [{**message, "content": "".join(part_text(part) for part in message["content"])} for message in conversation]
    spliced = (sequence.slot[:, 0] >= 0) | (sequence.role == Role.ACTION)
    want = render(bare, builder, own)
    # An answer of splices alone is not empty, so the historical space for an empty answer is not written.
    if bare[1]["content"].strip() or not any(part["type"] != "text" for part in answer):
        assert sequence.ids[~spliced].tolist() == want.ids.tolist()
        # before a splice the format's blank is no part of the answer: an action's ids come behind it as they are
        if next((part["type"] for part in answer if part_text(part).strip() or part["type"] != "text"), "") == "text":
            assert sequence.weight[~spliced].tolist() == want.weight.tolist()
    counted = sum(3 for part in reply + answer if part == IMAGE)
    assert sequence.slot_count("image") == counted
    for segment in range(len(sequence.segments)):
        indices = sequence.slot[sequence.slot[:, 0] == segment, 1].tolist()
        assert indices == list(range(len(indices)))
    actions = [number for part in reply + answer for number in part.get("ids", ())]
    assert sequence.ids[sequence.role == Role.ACTION].tolist() == actions


def part_text(part: dict[str, Any]) -> str:
    if part["type"] == "page":
        return "".join(line["text"] + "\n" for line in part["lines"])
    return part.get("text", "")


def test_cameras_are_segments_of_their_own():
    own = llama()
    content = [{"type": "image", "name": "image:wrist"}, IMAGE, {"type": "image", "name": "image:wrist"}, text("Go")]
    sequence = render(ask(content), "pure", own, {"image": 2}, anchored=("image",))
    assert sequence.segments == ("image:wrist", "image")
    assert sequence.slot[1:7].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3]]
    only = render(ask(content), "pure", own, {"image": 2}, anchored=("image:wrist",))
    assert only.slot[1:5, 0].tolist() == [0] * 4
    assert only.slot[5, 0] == -1
    assert only.slot_count("image") == 2
