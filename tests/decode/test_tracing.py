"""The trace tells what ran: held against `generate`, plain logits and the rule of who sees whom; and its page is parsed."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from io import StringIO

import pytest
import torch
from rich.console import Console

from tests.decode.plain import backbone, plain_logits, prompts
from tests.model.models import PATCHES, batch_of, page_row, shared, text
from vertebra.backbone.tiny import TINY
from vertebra.decode.call import generate
from vertebra.decode.choose.constraint import AllowedIds
from vertebra.decode.state.prefill import prefill
from vertebra.decode.tracing.html import trace_page
from vertebra.decode.tracing.terminal import print_trace
from vertebra.decode.tracing.trace import shown, trace
from vertebra.errors import GenerationError
from vertebra.prompt.rendering import render
from vertebra.sequence.batch import collate
from vertebra.sequence.tokens import TokenSequence
from vertebra.sequence.visibility import allowed

ORDER = ["prepare inputs", "embed", "decoder layers", "norm", "head", "choose", "append"]


@pytest.mark.parametrize("name", TINY)
def test_it_is_the_engine(name):
    """The same tokens, in every family; what was called comes in its order."""
    prompt = prompts(name)[0]
    traced = trace(backbone(name), prompt, max_new_tokens=4, eos_token_id=())
    assert traced.tokens == generate(backbone(name), prompt, max_new_tokens=4, eos_token_id=()).tokens[0]
    for step in traced.steps:
        names = [event.name for event in step.events]
        assert [one for one in ORDER if one in names] == names
        assert {"embed", "decoder layers", "head", "choose"} <= set(names)
    assert [one.shape for step in traced.steps for one in step.passes] == [[1, 12], [1, 1], [1, 1], [1, 1]]


def test_what_a_trace_shows_is_true():
    name = "tiny-gemma3"
    rows = prompts(name)
    traced = trace(backbone(name), rows, row=1, max_new_tokens=3, eos_token_id=())
    batch = collate(rows, pad_id=backbone(name).pad_token_id, side="left")
    first = traced.steps[0].passes[0]
    for mask, window in zip(first.masks, (8, None), strict=True):
        expected = allowed(batch, window=window)[1]
        real = batch["attention_mask"][1].bool()
        drawn = torch.tensor([[cell != "0" for cell in line] for line in mask.cells])
        assert torch.equal(drawn[real], expected[real])
    assert first.positions[-5:] == [0, 1, 2, 3, 4]
    assert (first.cached, first.cached_after) == (0, 17)
    ids = rows[1].ids.tolist()
    for step in traced.steps:
        chances = plain_logits(name, ids).softmax(-1)
        assert [one.id for one in step.candidates] == chances.topk(len(step.candidates)).indices.tolist()
        for one in step.candidates:
            assert one.probability == pytest.approx(float(chances[one.id]), abs=1e-4)
        assert step.id == step.candidates[0].id
        ids.append(step.id)
    assert [step.passes[0].cached for step in traced.steps[1:]] == [17, 18]
    assert [step.passes[0].positions for step in traced.steps[1:]] == [[5], [6]]
    assert [token.id for token in traced.prompt] == rows[1].ids.tolist()
    assert traced.stop_reason == "length"


def test_rules_and_drawing_are_shown():
    traced = trace(
        backbone("tiny-llama2"), prompts("tiny-llama2")[0], max_new_tokens=2, eos_token_id=(), temperature=0.8, top_k=5,
        top_p=0.9, min_p=0.01, repetition_penalty=1.3, suppress_tokens=[7], seed=3,
    )  # fmt: skip
    names = [event.name for event in traced.steps[0].events]
    assert names[5:] == ["repetition_penalty", "banned", "temperature", "top_k", "top_p", "min_p", "choose", "append"]
    assert "5 after it" in next(event.detail for event in traced.steps[0].events if event.name == "top_k")
    assert traced.steps[0].how.startswith("drawn with the number 0.")
    assert any(one.after is None for one in traced.steps[0].candidates)
    assert "temperature=0.8" in traced.settings


def policy():
    model = shared(inference_mode=True, weights=True)
    return model, batch_of(model, [page_row(0), (TokenSequence.join([text(3)]), {})])


def test_what_was_injected():
    model, batch = policy()
    traced = trace(model, batch, max_new_tokens=3)
    first, second = traced.steps[0], traced.steps[1]
    names = [event.name for event in first.events]
    assert names[:4] == ["encode", "prepare inputs", "embed", "inject"]
    assert first.passes[0].injected[0] == f"{PATCHES} × image at 1 to {PATCHES}"
    assert first.passes[0].inputs == "embeddings"
    assert second.passes[0].injected == []
    assert second.passes[0].inputs == "ids"
    assert sum(token.segment == "image" for token in traced.prompt) == PATCHES


def test_other_ways_are_shown_too():
    """In pieces, without a cache, over a static one, from a state, constrained, and until an end id."""
    model, (prompt, *_) = backbone("tiny-mistral"), prompts("tiny-mistral")
    pieces = trace(model, prompt, max_new_tokens=2, chunk=5)
    assert [one.shape for one in pieces.steps[0].passes] == [[1, 5], [1, 5], [1, 2]]
    uncached = trace(model, prompt, max_new_tokens=2, use_cache=False)
    assert uncached.steps[1].passes[0].shape == [1, 13]
    assert uncached.tokens == pieces.tokens
    static = trace(model, prompt, max_new_tokens=2, cache="static")
    assert static.steps[1].passes[0].masks[0].told.startswith("handed over as a mask of 0 and")
    state = trace(model, prefill(model, prompt), max_new_tokens=2)
    assert state.tokens == pieces.tokens
    assert state.steps[0].passes == []
    few = trace(model, prompt, max_new_tokens=2, constraint=AllowedIds(range(50, 55)))
    assert len(few.steps[0].candidates) == 5
    ended = trace(model, prompt, max_new_tokens=9, eos_token_id=pieces.tokens[1])
    assert ended.steps[-1].ended == ended.stop_reason == "eos"
    for one in (pieces, uncached, static, state, few, ended):
        trace_page(one)
    with pytest.raises(GenerationError, match="num_beams"):
        trace(model, prompt, num_beams=2)
    with pytest.raises(GenerationError, match="row 3 of a batch of 1"):
        trace(model, prompt, row=3)


def test_large_masks_are_drawn_coarser():
    model = backbone("tiny-llama2")
    traced = trace(model, prompts("tiny-llama2", (150,))[0], max_new_tokens=1)
    mask = traced.steps[0].passes[0].masks[0]
    assert (len(mask.cells), len(mask.cells[0])) == (64, 64)
    out = StringIO()
    print_trace(traced, Console(file=out, width=200))
    drawn = [line.strip() for line in out.getvalue().splitlines() if line.startswith("  ") and "█" in line]
    assert len(drawn) == 31  # half as fine as on the page; the first line is all half open
    assert drawn[-1].startswith("█" * 60)
    assert (mask.queries, mask.keys, mask.visible) == (150, 150, 150 * 151 // 2)


def test_blanks_and_shapes_are_seen():
    """A blank before a word shows, though a token decoded alone loses it; and what was handed over has its shape."""
    model = backbone("tiny-llama2")
    ids = model.tokenizer("on the left\n", add_special_tokens=False).input_ids
    words = "".join(shown(model.tokenizer, token) for token in ids)
    assert words.removeprefix("␣") == "on␣the␣left⏎"
    rows = prompts("tiny-llama2")
    reported = [step.passes[0].masks[0].caption for step in trace(model, rows, row=1, max_new_tokens=2).steps]
    assert reported == [
        "17 × 17, 15 of 289 pairs open; handed over as a mask of padding, [3, 17]",
        "1 × 18, 6 of 18 pairs open; handed over as a mask of 0 and −max, [3, 1, 1, 18]",
    ]


def test_in_a_terminal():
    model, batch = policy()
    traced = trace(model, batch, max_new_tokens=3, temperature=0.7, seed=1)
    out = StringIO()
    print_trace(traced, Console(file=out, width=200))
    output = out.getvalue()
    for words in (
        "[4 × image]",
        "embeddings [2, 24, 64]",
        "0 → 24",
        "inject",
        "stopped length",
        "██",
        "step 1  Decode: one column",
    ):
        assert words in output, words
    assert len(output.splitlines()) < 80


class Page(HTMLParser):
    """What a browser would find: sections, buttons, table rows, text, the data; and anything that reaches out."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: dict[str, list[dict[str, str | None]]] = {}
        self.open: list[str] = []
        self.text: dict[str, str] = {}
        self.where = ""
        self.feed(source)
        self.close()

    VOID = ("meta", "br", "rect")

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.found.setdefault(tag, []).append(given)
        if given.get("id"):
            self.where = given["id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.setdefault(tag, []).append(dict(attrs))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text[self.where] = self.text.get(self.where, "") + data


def test_the_page():
    model, batch = policy()
    traced = trace(model, batch, max_new_tokens=4)
    source = trace_page(traced)
    parsed = Page(source)
    assert parsed.open == []
    sections = [one for one in parsed.found["section"] if one["class"].startswith("step")]
    assert [one["id"] for one in sections] == [f"step-{n}" for n in range(4)]
    assert [one["data-step"] for one in parsed.found["button"]] == ["0", "1", "2", "3"]
    assert len([one for one in parsed.found["svg"] if one.get("class") == "mask"]) == 4
    for words in (
        "encode",
        "inject",
        "decoder layers",
        "embeddings [2, 24, 64]",
        "0 … 23",
        "0 columns before, 24 after",
        "Prefill",
    ):
        assert words in parsed.text["step-0"], words
    assert "Decode: one column goes in" in parsed.text["step-1"]
    assert "4 × image" in parsed.text["prompt"]
    assert "length" in parsed.text["end"]
    assert json.loads(parsed.text["trace"].split("\nconst root")[0].strip()) == json.loads(json.dumps(traced.to_json()))
    reaching = [one for tags in parsed.found.values() for one in tags if "src" in one or "href" in one]
    assert not reaching
    assert "http" not in source
    assert "@import" not in source


def test_what_users_type_stays_text():
    """Marks and scripts in a prompt are shown and never run."""
    model = backbone("tiny-qwen2.5")
    typed = "</script><script>alert(1)</script> <b>bold</b> & \"quoted\" 'too' $title <|im_end|>"
    prompt = render([{"role": "user", "content": typed}], model.prompt_builder_fn, model.tokenizer, anchor=model.anchor)
    parsed = Page(trace_page(trace(model, prompt, max_new_tokens=2)))
    assert len(parsed.found["script"]) == 2
    assert "b" not in parsed.found
    assert parsed.open == []
