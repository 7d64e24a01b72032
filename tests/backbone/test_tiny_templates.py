"""The tiny checkpoints' chat formats, against exact strings written down from the real families' manners."""

from __future__ import annotations

import pytest
from jinja2 import TemplateError
from transformers import AutoTokenizer

from vertebra.backbone.tiny import TINY, tiny_checkpoint

SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = {"role": "user", "content": "Where is it?"}
ANSWER = {"role": "assistant", "content": "On the left."}
SECOND = {"role": "user", "content": "Thanks"}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERTEBRA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def chat(name: str, *messages: dict[str, str], ask: bool = False, **options) -> str:
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint(name))
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ask, **options)


def chatml(*turns: tuple[str, str]) -> str:
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)


# name: (with a system prompt, two turns and an open answer; one closed turn without a system prompt)
FORMATS = {
    "tiny-llama2": (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhere is it? [/INST] On the left. </s><s>[INST] Thanks [/INST]",
        "<s>[INST] Where is it? [/INST] On the left. </s>",
    ),
    "tiny-mistral": (
        "<s> [INST] Be brief.\n\nWhere is it? [/INST] On the left.</s> [INST] Thanks [/INST]",
        "<s> [INST] Where is it? [/INST] On the left.</s>",
    ),
    "tiny-llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhere is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nOn the left.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nThanks<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhere is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nOn the left.<|eot_id|>",
    ),
    "tiny-phi3": (
        "<|system|>\nBe brief.<|end|>\n<|user|>\nWhere is it?<|end|>\n<|assistant|>\nOn the left.<|end|>\n"
        "<|user|>\nThanks<|end|>\n<|assistant|>\n",
        "<|user|>\nWhere is it?<|end|>\n<|assistant|>\nOn the left.<|end|>\n<|endoftext|>",
    ),
    "tiny-gemma3": (
        "<bos><start_of_turn>user\nBe brief.\n\nWhere is it?<end_of_turn>\n"
        "<start_of_turn>model\nOn the left.<end_of_turn>\n"
        "<start_of_turn>user\nThanks<end_of_turn>\n<start_of_turn>model\n",
        "<bos><start_of_turn>user\nWhere is it?<end_of_turn>\n<start_of_turn>model\nOn the left.<end_of_turn>\n",
    ),
}
DEFAULT_SYSTEM = {
    "tiny-qwen2": "You are a helpful assistant.",
    "tiny-qwen2.5": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "tiny-smollm2": "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name):
    whole, closed = FORMATS[name]
    assert chat(name, SYSTEM, FIRST, ANSWER, SECOND, ask=True) == whole
    assert chat(name, FIRST, ANSWER) == closed


@pytest.mark.parametrize("name", DEFAULT_SYSTEM)
def test_chatml_has_a_system_prompt_of_its_own(name):
    turns = [("user", "Where is it?"), ("assistant", "On the left.")]
    assert chat(name, FIRST, ANSWER) == chatml(("system", DEFAULT_SYSTEM[name]), *turns)
    assert chat(name, SYSTEM, FIRST, ask=True) == chatml(("system", "Be brief."), turns[0]) + "<|im_start|>assistant\n"


def test_qwen3_thinks():
    asked = chatml(("user", "Where is it?"))
    assert chat("tiny-qwen3", FIRST, ask=True) == asked + "<|im_start|>assistant\n"
    quiet = chat("tiny-qwen3", FIRST, ask=True, enable_thinking=False)
    assert quiet == asked + "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nOn the left."}
    assert chat("tiny-qwen3", FIRST, thought) == asked + chatml(("assistant", thought["content"]))
    again = chatml(("assistant", "On the left."), ("user", "Thanks"))
    assert chat("tiny-qwen3", FIRST, thought, SECOND) == asked + again
    empty = chatml(("assistant", "<think>\n\n</think>\n\nOn the left."))
    assert chat("tiny-qwen3", SYSTEM, FIRST, ANSWER) == chatml(("system", "Be brief.")) + asked + empty


def test_smollm3_says_how_it_reasons():
    head = "<|im_start|>system\n## Metadata\n\nReasoning Mode: {}\n\n## Custom Instructions\n\n{}\n\n<|im_end|>\n"
    own = "You are a helpful AI assistant named SmolLM, trained by Hugging Face."
    asked = chatml(("user", "Where is it?"))
    assert chat("tiny-smollm3", FIRST, ask=True) == head.format("/think", own) + asked + "<|im_start|>assistant\n"
    quiet = {"role": "system", "content": "Be brief. /no_think"}
    expected = head.format("/no_think", "Be brief.") + asked + "<|im_start|>assistant\n<think>\n\n</think>\n"
    assert chat("tiny-smollm3", quiet, FIRST, ask=True) == expected
    plain = {"role": "system", "content": "Be brief. /system_override"}
    assert chat("tiny-smollm3", plain, FIRST) == chatml(("system", "Be brief.")) + asked


def test_gemma2_has_no_system_role():
    with pytest.raises(TemplateError, match="System role not supported"):
        chat("tiny-gemma2", SYSTEM, FIRST)
    assert chat("tiny-gemma2", FIRST, ask=True) == (
        "<bos><start_of_turn>user\nWhere is it?<end_of_turn>\n<start_of_turn>model\n"
    )


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-mistral", "tiny-gemma2", "tiny-gemma3"])
@pytest.mark.parametrize("wrong", [(ANSWER,), (FIRST, FIRST), (FIRST, ANSWER, SYSTEM)])
def test_turns_out_of_order(name, wrong):
    with pytest.raises(TemplateError, match="take turns"):
        chat(name, *wrong)


def test_who_has_a_template():
    without = {"tiny-opt", "tiny-opt-narrow", "tiny-gpt2", "tiny-pythia", "tiny-phi2"}
    for name in TINY:
        tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint(name))
        assert (tokenizer.chat_template is None) == (name in without)


@pytest.mark.parametrize("name", [name for name, spec in TINY.items() if spec.template])
def test_the_marks_are_single_tokens(name):
    """Tokenized as the template says it, every mark is one id, and BOS comes at most once."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint(name))
    ids = tokenizer.apply_chat_template([FIRST, ANSWER], return_dict=False)
    text = tokenizer.apply_chat_template([FIRST, ANSWER], tokenize=False)
    assert ids == tokenizer(text, add_special_tokens=False).input_ids
    added = tokenizer.get_added_vocab()
    marks = {token for token in added if token in text}
    assert marks
    assert marks <= set(tokenizer.convert_ids_to_tokens(ids))
    if tokenizer.bos_token and name != "tiny-smollm2":  # whose BOS opens every turn
        assert ids.count(tokenizer.bos_token_id) <= 1
