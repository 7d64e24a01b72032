"""`render`: slots in place and anchored, actions as ids, BOS once, open turns, weights, blocks."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.prompt.test_properties import ordinary
from tests.prompt.tokenizers import MAKERS, committed, plain, tokenizer
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.errors import ConfigError, PromptError
from vertebra.prompt.formats import ChatMLPromptBuilder, PurePromptBuilder
from vertebra.prompt.registry import prompt_builder, prompt_builder_names
from vertebra.prompt.rendering import render, render_many
from vertebra.prompt.tokenizer import FastTokenizer
from vertebra.sequence.roles import NO_TARGET, Role

IMAGE = {"type": "image"}
BUILDERS = [name for name in prompt_builder_names() if name != "template"]


@cache
def llama() -> Any:
    return AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-llama2"))


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def ask(content: Any, answer: Any = None) -> list[dict[str, Any]]:
    turns = [{"role": "user", "content": content}]
    return turns if answer is None else [*turns, {"role": "assistant", "content": answer}]


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
    said = data.draw(parts)
    answer = data.draw(parts)
    sizes = {"image": 3}
    own = tokenizer(name)
    conversation = ask([text("q"), *said], answer)
    sequence = render(conversation, builder, own, sizes)
    bare = [{**message, "content": "".join(part_text(part) for part in message["content"])} for message in conversation]
    spliced = (sequence.slot[:, 0] >= 0) | (sequence.role == Role.ACTION)
    want = render(bare, builder, own)
    # An answer of splices alone is not empty, so the historical space for an empty answer is not written.
    if bare[1]["content"].strip() or not any(part["type"] != "text" for part in answer):
        assert sequence.ids[~spliced].tolist() == want.ids.tolist()
        assert sequence.weight[~spliced].tolist() == want.weight.tolist()
    counted = sum(3 for part in said + answer if part == IMAGE)
    assert sequence.slot_count("image") == counted
    for segment in range(len(sequence.segments)):
        indices = sequence.slot[sequence.slot[:, 0] == segment, 1].tolist()
        assert indices == list(range(len(indices)))
    actions = [number for part in said + answer for number in part.get("ids", ())]
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


def llama_without_bos() -> FastTokenizer:
    raw = committed("llama")
    raw.post_processor = None  # type: ignore[assignment]
    return FastTokenizer(raw, bos="<s>", eos="</s>")


@pytest.mark.parametrize("builder", ["pure", "llama2-chat", "vicuna-v15", "mistral-instruct"])
def test_bos_exactly_once_whether_or_not_the_tokenizer_adds_it(builder: str):
    """`add_bos_token` is not asked: it lies on reloaded tokenizers. What encoding does counts."""
    with_bos, without = FastTokenizer(committed("llama"), bos="<s>"), llama_without_bos()
    one, two = (render(ask("Hi", "Yes"), builder, own) for own in (with_bos, without))
    assert one == two
    assert one.ids[0] == 1
    assert (one.ids == 1).sum() == 1


def test_a_bos_that_the_text_holds_is_not_doubled():
    raw = committed("gpt2")
    end = raw.token_to_id("<|endoftext|>")
    raw.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", pair="<|endoftext|> $A $B", special_tokens=[("<|endoftext|>", end)]
    )
    sequence = render(ask([IMAGE, text("Hi")]), "phi", raw, {"image": 2}, anchored=("image",))
    assert sequence.ids[0] == end
    assert (sequence.ids == end).sum() == 1
    assert sequence.slot[:4, 0].tolist() == [-1, 0, 0, -1]


def test_a_bos_that_is_toggled_is_seen():
    own = PreTrainedTokenizerFast(tokenizer_object=committed("llama"), bos_token="<s>", eos_token="</s>")
    assert render(ask("Hi"), "chatml", own).ids[0] == 1
    own.backend_tokenizer.post_processor = committed("gpt2").post_processor
    assert render(ask("Hi"), "chatml", own).ids[0] != 1


def test_anchor_policies():
    with_bos, without = FastTokenizer(committed("llama"), bos="<s>"), llama_without_bos()
    nothing = FastTokenizer(committed("gpt2"))
    content = [IMAGE, text("Hi")]

    def front(own: Any, anchor: str | None, builder: str = "pure") -> list[bool]:
        sequence = render(ask(content), builder, own, {"image": 1}, anchor=anchor, anchored=("image",))
        return (sequence.slot[:3, 0] == 0).tolist()

    assert front(with_bos, "bos") == front(with_bos, "prepend bos") == front(without, "prepend bos")
    assert front(with_bos, "bos") == [False, True, False]
    assert front(nothing, "none") == front(nothing, None) == front(without, "none") == [True, False, False]
    assert front(nothing, None, "phi") == [False, True, False]
    with pytest.raises(PromptError, match="policy is `bos`, but this tokenizer adds none"):
        front(without, "bos")
    with pytest.raises(PromptError, match="policy is `none`, but this tokenizer puts the ids"):
        front(with_bos, "none")
    with pytest.raises(PromptError, match="has no BOS token"):
        front(nothing, "prepend bos")
    with pytest.raises(ConfigError, match="Did you mean `prepend bos`"):
        front(nothing, "prepend_bos")


@pytest.mark.parametrize("name", ["tiny-smollm2", "tiny-qwen2.5", "tiny-llama3", "tiny-gemma3", "tiny-llama2"])
def test_anchored_after_the_templates_own_bos(name: str):
    own = AutoTokenizer.from_pretrained(tiny_checkpoint(name))
    sequence = render(ask([IMAGE, text("Hi")], "Yes"), "template", own, {"image": 2}, anchored=("image",))
    first = 1 if name in ("tiny-llama3", "tiny-gemma3", "tiny-llama2") else 0
    assert np.flatnonzero(sequence.slot[:, 0] == 0).tolist() == [first, first + 1]


def test_roles_to_train():
    own = llama()
    chat = [{"role": "system", "content": "Be kind."}, *ask("Hi", "Yes")]
    both = render(chat, "vicuna-v15", own, roles=("user", "assistant"))
    assert own.decode(both.ids[both.weight > 0]).split() == ["Hi", "Yes</s>"]
    system = render(chat, "vicuna-v15", own, roles=("system",))
    assert own.decode(system.ids[system.weight > 0]) == "Be kind."
    assert render(chat, "vicuna-v15", own, roles=()).supervised == 0


def test_weights_of_messages():
    own = llama()
    chat = [*ask("Hi", "Yes"), *ask("Sure?", "No")]
    chat[1]["weight"] = 0
    chat[3]["weight"] = 2.5
    sequence = render(chat, "pure", own)
    assert set(sequence.weight.tolist()) == {0.0, 2.5}
    assert own.decode(sequence.ids[sequence.weight > 0]).strip() == "No</s>"


def test_trusted_roles_may_say_tokens(caplog):
    own = AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-qwen3"))
    call = own.convert_tokens_to_ids("<tool_call>")
    chat = ask("<tool_call>", "<tool_call>")
    assert (render(chat, "chatml", own).ids == call).sum() == 0
    assert "`assistant` says holds `<tool_call>`, which stays text" in caplog.text
    sequence = render(chat, "chatml", own, trusted=("gpt",))
    assert (sequence.ids == call).sum() == 1
    assert sequence.weight[sequence.ids == call] == 1


def test_the_reserved_id():
    own = AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-qwen2.5"))
    content = [IMAGE, text("Hi")]
    sequence = render(ask(content), "chatml", own, {"image": 1})
    assert sequence.ids[sequence.slot[:, 0] >= 0].tolist() == [own.pad_token_id]
    given_id = render(ask(content), "chatml", own, {"image": 1}, slot_id=5)
    assert given_id.ids[given_id.slot[:, 0] >= 0].tolist() == [5]
    own.pad_token = None
    eos = render(ask(content), "chatml", own, {"image": 1})
    assert eos.ids[eos.slot[:, 0] >= 0].tolist() == [own.eos_token_id]


def test_open_and_closed():
    own = AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-qwen2.5"))
    opened = render(ask("Hi"), "chatml", own)
    assert own.decode(opened.ids).endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert opened == render(ask("Hi"), "chatml", own, open_turn=True)
    assert own.decode(render(ask("Hi"), "chatml", own, open_turn=False).ids).endswith("Hi<|im_end|>\n")
    going_on = render(ask("Hi", "Yes, I"), "chatml", own, open_turn=True)
    assert own.decode(going_on.ids).endswith("<|im_start|>assistant\nYes, I")
    assert going_on.weight[-1] == 1


def test_builders_by_name_class_and_instance():
    own = llama()
    assert render(ask("Hi"), "pure", own) == render(ask("Hi"), PurePromptBuilder, own)
    assert render(ask("Hi"), PurePromptBuilder("openvla"), own) == render(ask("Hi"), "pure", own)
    spoken = ChatMLPromptBuilder("qwen", "Be kind.")
    assert "Be kind." in own.decode(render(ask("Hi"), spoken, own).ids)
    spoken.add_turn("human", "Hi")
    with pytest.raises(PromptError, match="already holds 1 turns"):
        render(ask("Hi"), spoken, own)
    with pytest.raises(PromptError, match="instance, a class or a name"):
        render(ask("Hi"), 3, own)  # type: ignore[arg-type]


def test_two_system_prompts():
    chat = [{"role": "system", "content": "Be kind."}, *ask("Hi")]
    with pytest.raises(PromptError, match="two system prompts"):
        render(chat, ChatMLPromptBuilder("qwen", "Be rude."), llama())


def test_a_system_message_alone():
    with pytest.raises(PromptError, match="a system message alone"):
        render([{"role": "system", "content": "Be kind."}], "llama2-chat", llama())


def test_a_token_that_opens_turns_is_no_bos():
    """SmolLM's BOS is `<|im_start|>`, which its tokenizer does not add."""
    own = AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-smollm2"))
    content = [IMAGE, text("Hi")]
    sequence = render(ask(content), "chatml", own, {"image": 1}, anchored=("image",), open_turn=False)
    assert sequence.slot[0].tolist() == [0, 0]
    assert (sequence.ids == own.bos_token_id).sum() == 1


def test_image_mark_typed_in_text():
    """Cut out for old checkpoints; otherwise images are parts and `<image>` is what somebody wrote."""
    own = llama()
    assert "<image>" in own.decode(render(ask("<image>\nHi"), "pure", own).ids)
    assert render(ask("<image>\nHi"), "pure-legacy", own) == render(ask("Hi"), "pure", own)


def test_many_are_as_one_by_one():
    own = llama()
    chats = [ask(f"Question {n} </s>", "Yes" * n) for n in range(1, 12)]
    assert render_many(chats, "vicuna-v15", own) == [render(chat, "vicuna-v15", own) for chat in chats]
    assert render_many([], "pure", own) == []


def test_a_stop_that_is_no_token_is_told(caplog):
    own = AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-gpt2"))
    render(ask("Hi"), "pure", own)
    assert not caplog.text
    render(ask("Hi", "Yes"), "pure", own)
    assert "eos='<|endoftext|>'" in caplog.text
    sequence = render(ask("Hi", "Yes"), prompt_builder("pure", eos=own.eos_token), own)
    assert sequence.ids[-1] == own.eos_token_id
    assert sequence.weight[-1] == 1


def test_bad_collections():
    for option in ("anchored", "both_ways"):
        with pytest.raises(ConfigError, match=f"`{option}` is a collection"):
            render(ask("Hi"), "pure", llama(), **{option: "image"})


def test_no_torch():
    code = "import sys, vertebra; vertebra.render, vertebra.prompt_builder('pure'); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out.strip().lower()) is False
