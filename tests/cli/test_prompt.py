"""`vertebra prompt`: text, ids and supervision are those that training and inference use."""

from __future__ import annotations

import json

import pytest

from vertebra.backbone.registry import load_backbone
from vertebra.prompt.rendering import render

ASKED = ("--user", "What is in the cup?")


def test_the_parts(vertebra):
    done = vertebra("prompt", "tiny-llama2", *ASKED, "--assistant", "Hot tea.")
    assert done.code == 0
    assert "In: What is in the cup?\nOut: Hot tea.</s>" in done.out
    assert "tiny-llama2, builder pure" in done.out
    assert "supervised" in done.out


def test_json_is_what_render_gives(vertebra):
    data = json.loads(
        vertebra("prompt", "tiny-qwen3", "--system", "Be brief.", *ASKED, "--assistant", "Tea.", "--json").out
    )
    backbone = load_backbone("tiny-qwen3")
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": ASKED[1]},
        {"role": "assistant", "content": "Tea."},
    ]
    sequence = render(conversation, backbone.prompt_builder_fn, backbone.tokenizer, anchor=backbone.anchor)
    assert data["ids"] == sequence.ids.tolist()
    assert data["weights"] == sequence.weight.tolist()
    assert data["tokens"] == backbone.tokenizer.convert_ids_to_tokens(data["ids"])
    assert len(data["roles"]) == len(data["ids"])
    assert data["text"] == backbone.tokenizer.decode(data["ids"])


def test_turns_alternate_and_the_last_may_be_open(vertebra):
    turns = ("--user", "one", "--assistant", "two", "--user", "three")
    data = json.loads(vertebra("prompt", "tiny-llama2", *turns, "--json").out)
    assert data["text"] == "In: one\nOut: two</s>In: three\nOut:"
    assert data["weights"][-1] == 0


def test_another_builder(vertebra):
    data = json.loads(vertebra("prompt", "tiny-llama2", *ASKED, "--builder", "vicuna-v15", "--json").out)
    assert data["text"].endswith("USER: What is in the cup? ASSISTANT:")
    data = json.loads(vertebra("prompt", "tiny-qwen2.5", *ASKED, "--builder", "template", "--json").out)
    assert data["builder"] == "template"
    assert data["text"].endswith("<|im_start|>assistant\n")


def test_a_system_prompt_without_a_place(vertebra):
    done = vertebra("prompt", "tiny-llama2", *ASKED, "--system", "Be brief.")
    assert done.code == 1
    assert "no place for a system prompt" in done.err
    done = vertebra("prompt", "tiny-llama2", *ASKED, "--system", "Be brief.", "--fold-system")
    assert "In: Be brief.\n\nWhat is in the cup?" in done.out


def test_square_brackets_stay(vertebra):
    done = vertebra("prompt", "tiny-mistral", "--user", "the [red] [/b] block")
    assert "[INST] the [red] [/b] block [/INST]" in done.out


def test_a_page(vertebra, tmp_path):
    page = tmp_path / "prompt.html"
    done = vertebra("prompt", "tiny-llama2", *ASKED, "--html", str(page))
    assert f"written to {page}" in done.out
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    done = vertebra("prompt", "tiny-llama2", *ASKED, "--html", str(tmp_path / "no" / "p.html"), "--json")
    assert done.code == 1
    assert "cannot be written" in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    "turns",
    [(), ("--assistant", "a"), ("--user", "a", "--user", "b"), (*ASKED, "--assistant", "a", "--assistant", "b")],
)
def test_turns_that_do_not_fit(vertebra, turns):
    assert vertebra("prompt", "tiny-llama2", *turns).code == 2


def test_bad_input(vertebra):
    done = vertebra("prompt", "tiny-lama2", *ASKED)
    assert done.code == 1
    assert "`tiny-llama2`" in done.err
    done = vertebra("prompt", "tiny-llama2", *ASKED, "--builder", "chatlm")
    assert done.code == 1
    assert "`chatml`" in done.err
    done = vertebra("prompt", "tiny-llama2", "--user", " ")
    assert done.code == 1
    assert "empty" in done.err
