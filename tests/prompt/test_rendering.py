"""The options of `render`: BOS and anchors, roles, weights, trust, open turns, builders, many at once."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.prompt.samples import IMAGE, ask, llama, text
from tests.prompt.tokenizers import committed
from vertebra import log
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.errors import ConfigError, PromptError
from vertebra.prompt.formats import ChatMLPromptBuilder, PurePromptBuilder
from vertebra.prompt.registry import prompt_builder
from vertebra.prompt.rendering import render, render_many
from vertebra.prompt.tokenizer import FastTokenizer


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
    assert "the text of `assistant` holds `<tool_call>`, which stays text" in caplog.text
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
    with_system = ChatMLPromptBuilder("qwen", "Be kind.")
    assert "Be kind." in own.decode(render(ask("Hi"), with_system, own).ids)
    with_system.add_turn("human", "Hi")
    with pytest.raises(PromptError, match="already holds 1 turns"):
        render(ask("Hi"), with_system, own)
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


def test_a_stop_that_is_no_token_is_reported(caplog):
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


def test_a_name_that_nothing_has_is_reported(caplog):
    """Without effect, and so perhaps a typo; a name that only other rows have is known by `sizes`."""
    log.forget_warned()
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    render(asked, "pure", llama(), {"image": 2}, anchored=("imge",), both_ways=("action", "image"))
    assert [record.message for record in caplog.records if "imge" in record.message] == [
        "anchored='imge' is no part type and no segment here. Did you mean `image` or `page`?"
    ]
    caplog.clear()
    render(ask("Hi"), "pure", llama(), {"queries": 2}, anchored=("queries", "image"), both_ways=("queries",))
    assert not caplog.records


@pytest.mark.parametrize("wrong", [None, 3])
def test_no_conversation(wrong):
    with pytest.raises(PromptError, match="a conversation is a list of messages"):
        render(wrong, "pure", llama())


def test_sizes_and_open_turn_of_a_wrong_kind():
    with pytest.raises(PromptError, match="`sizes` is"):
        render(ask("Hi"), "pure", llama(), [196])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="open_turn='yes'"):
        render(ask("Hi"), "pure", llama(), open_turn="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("many", [1, 3])
def test_half_a_character_is_reported(many):
    """JSON cut inside an emoji: no encoding has it, and the tokenizer says only that it wants strings."""
    with pytest.raises(PromptError, match=r"half a character, '\\ud83d'"):
        render_many([ask("pick the \ud83d cup")] * many, "pure", llama())


def test_no_torch():
    code = (
        "import sys, vertebra; vertebra.render, vertebra.prompt.prompt_builder('pure'); print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out.strip().lower()) is False
