"""`vertebra generate`, `trace` and `score`: on a language model, and on models in the manner of the two examples."""

from __future__ import annotations

import io
import json
import re
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image

from vertebra.backbone.registry import load_backbone
from vertebra.decode.call import generate
from vertebra.decode.scoring import score
from vertebra.model.encoders.boxes import BoxTables
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.encoders.vision.fused import FusedTowers
from vertebra.model.encoders.vision.tiny import tiny_vision_checkpoint
from vertebra.model.encoders.vision.tower import VisionTower
from vertebra.model.fresh import new_part
from vertebra.model.model import Model
from vertebra.prompt.rendering import render

ASKED = "What is on the table?"
LINES = [{"text": "Total", "box": [10, 20, 90, 40]}, {"text": "12.50", "box": [500, 20, 600, 40]}]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A policy with two towers, a document model with patches and boxes, an image and a page."""
    folder = tmp_path_factory.mktemp("models")
    towers = FusedTowers([VisionTower.load(tiny_vision_checkpoint(name)) for name in ("tiny-dinov2", "tiny-siglip")])
    backbone = load_backbone("tiny-llama2")
    Model(backbone, {"image": new_part(backbone, towers, "gelu3", place="anchored")}).save(folder / "vla")
    backbone = load_backbone("tiny-llama2")
    parts = {
        "image": new_part(backbone, PatchEncoder(64), "linear", place="anchored"),
        "boxes": new_part(backbone, BoxTables(16), "linear"),
    }
    Model(backbone, parts).save(folder / "document")
    Image.new("RGB", (64, 64), "blue").save(folder / "blue.png")
    Image.new("RGB", (64, 64), "red").save(folder / "red.png")
    (folder / "page.json").write_text(json.dumps(LINES))
    return folder


def prompt_of(model):
    return render([{"role": "user", "content": ASKED}], model.prompt_builder_fn, model.tokenizer, anchor=model.anchor)


def test_it_says_what_the_engine_says(vertebra):
    model = load_backbone("tiny-llama2", inference_mode=True, weights=True)
    expected = generate(model, prompt_of(model), max_new_tokens=8)
    done = vertebra("generate", "tiny-llama2", ASKED, "--max-new-tokens", "8")
    assert done.code == 0
    assert done.out == expected.text[0] + "\n"
    assert "[8 tokens" in done.err
    data = json.loads(vertebra("generate", "tiny-llama2", ASKED, "--max-new-tokens", "8", "--json").out)
    assert (data["text"], data["tokens"]) == (expected.text[0], expected.tokens[0])
    assert data["passes"] == [len(prompt_of(model))] + [1] * 7
    assert data["stop_reason"] == "length"


def test_drawing_with_a_seed(vertebra):
    options = ("--max-new-tokens", "6", "--temperature", "0.9", "--top-p", "0.95", "--json", "--seed")
    one, again, other = (json.loads(vertebra("generate", "tiny-qwen3", ASKED, *options, seed).out) for seed in "112")
    assert one["tokens"] == again["tokens"] != other["tokens"]
    assert one["seeds"] == [1]


def test_several_answers_and_beams(vertebra):
    options = ("--max-new-tokens", "4", "--json")
    data = json.loads(vertebra("generate", "tiny-llama2", ASKED, *options, "--answers", "3", "--temperature", "1").out)
    assert len(data["text"]) == 3
    data = json.loads(vertebra("generate", "tiny-llama2", ASKED, *options, "--num-beams", "2").out)
    assert data["engine"] == "hf"
    printed = vertebra(
        "generate", "tiny-llama2", ASKED, "--max-new-tokens", "4", "--answers", "2", "--temperature", "1"
    )
    assert printed.out.startswith("[0] ")
    assert "[1] " in printed.out


def test_constrained(vertebra, tmp_path):
    assert vertebra("generate", "tiny-llama2", ASKED, "--regex", "(left|right) [0-9]").out.strip()[:-2] in (
        "left",
        "right",
    )
    assert vertebra("generate", "tiny-llama2", ASKED, "--choice", "tea", "--choice", "milk").out.strip() in (
        "tea",
        "milk",
    )
    schema = tmp_path / "schema.json"
    schema.write_text(
        '{"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": false}'
    )
    assert json.loads(vertebra("generate", "tiny-llama2", ASKED, "--json-schema", str(schema)).out)["n"] in (1, 2)
    blank = vertebra("generate", "tiny-llama2", ASKED, "--regex", " *", "--max-new-tokens", "3")
    assert re.search(r"\[3 tokens without text: (\S+ ){2}\S+, ", blank.err), "tokens that print as nothing are named"
    assert vertebra("generate", "tiny-llama2", ASKED, "--regex", "a", "--choice", "b").code == 2
    done = vertebra("generate", "tiny-llama2", ASKED, "--regex", "(left")
    assert done.code == 1
    assert "cannot be followed" in done.err


def test_raw_text_and_standard_input(vertebra, monkeypatch):
    """Continued as it stands; what is typed is text, control tokens too."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("Once </s> upon\n"))
    piped = vertebra("generate", "tiny-llama2", "-", "--raw", "--max-new-tokens", "3", "--json")
    typed = vertebra("generate", "tiny-llama2", "Once </s> upon", "--raw", "--max-new-tokens", "3", "--json")
    assert json.loads(piped.out)["tokens"] == json.loads(typed.out)["tokens"]
    plain = json.loads(vertebra("generate", "tiny-llama2", "Once", "--raw", "--max-new-tokens", "1", "--json").out)
    assert json.loads(typed.out)["prompt_positions"] > plain["prompt_positions"] + 2
    assert vertebra("generate", "tiny-llama2", "a", "--raw", "--system", "b").code == 2


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-mistral", "tiny-qwen2.5"])
def test_a_conversation(vertebra, monkeypatch, name):
    """Each answer is what a fresh call on the whole conversation gives; `/new` forgets it."""
    lines = iter(["Hello there", "And then?", "/new", "Hello there", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    done = vertebra("generate", name, "--interactive", "--max-new-tokens", "5")
    assert done.code == 0
    model = load_backbone(name, inference_mode=True, weights=True)

    def answer(turns):
        prompt = render(turns, model.prompt_builder_fn, model.tokenizer, anchor=model.anchor)
        return generate(model, prompt, max_new_tokens=5).text[0]

    first = answer([{"role": "user", "content": "Hello there"}])
    turns = [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": first}]
    second = answer([*turns, {"role": "user", "content": "And then?"}])
    assert done.out == f"{first}\n{second}\n{first}\n"
    assert done.err.count("[5 tokens") == 3


def test_images_and_pages(vertebra, files):
    """Another image, another answer; a page brings the boxes of its lines."""
    options = ("--max-new-tokens", "4", "--json")
    blue, red = (
        json.loads(vertebra("generate", str(files / "vla"), ASKED, "--image", str(files / f"{name}.png"), *options).out)
        for name in ("blue", "red")
    )
    assert blue["prompt_positions"] == red["prompt_positions"]
    assert blue["passes"] == [blue["prompt_positions"], 1, 1, 1]
    page = ("--image", str(files / "blue.png"), "--page", str(files / "page.json"))
    data = json.loads(vertebra("generate", str(files / "document"), ASKED, *page, *options).out)
    assert data["prompt_positions"] > 196 + len(LINES)
    assert json.loads(vertebra("generate", str(files / "document"), ASKED, *options).out)["prompt_positions"] < 100


def test_what_cannot_be_asked(vertebra, files, tmp_path):
    done = vertebra("generate", "tiny-llama2", ASKED, "--image", str(files / "blue.png"))
    assert done.code == 1
    assert "no part `image`; it is a language model alone" in done.err
    done = vertebra("generate", str(files / "vla"), ASKED, "--page", str(files / "page.json"))
    assert "its parts are image" in done.err
    bad = tmp_path / "page.json"
    for text, message in (("[1]", "must hold a list of lines"), ("{", "is no JSON")):
        bad.write_text(text)
        assert message in vertebra("generate", str(files / "document"), ASKED, "--page", str(bad)).err
    assert (
        "cannot be read"
        in vertebra("generate", str(files / "document"), ASKED, "--page", str(tmp_path / "none.json")).err
    )
    assert vertebra("generate", "tiny-llama2").code == 2
    assert vertebra("generate", "tiny-llama2", ASKED, "-i", "--json").code == 2
    done = vertebra("generate", "tiny-llama2", ASKED, "--max-new-tokens", "0")
    assert done.code == 1
    assert "max_new_tokens is 0" in done.err


@pytest.mark.parametrize("which", ["tiny-llama2", "vla", "document"])
def test_trace(vertebra, files, tmp_path, which):
    """In the terminal, as JSON and as a page, for a language model and both kinds of multimodal ones."""
    name = which if which.startswith("tiny") else str(files / which)
    more = () if which.startswith("tiny") else ("--image", str(files / "blue.png"))
    more += ("--page", str(files / "page.json")) if which == "document" else ()
    target = tmp_path / "trace.html"
    done = vertebra("trace", name, ASKED, *more, "--max-new-tokens", "3", "--html", str(target))
    assert done.code == 0, done.err
    for words in ("prompt", "decoder layers", "stopped length", "step 1  Decode", f"written to {target}"):
        assert words in done.out, words
    assert ("inject" in done.out) == (not which.startswith("tiny"))
    parser = HTMLParser()
    parser.feed(target.read_text(encoding="utf-8"))
    parser.close()
    data = json.loads(vertebra("trace", name, ASKED, *more, "--max-new-tokens", "3", "--json").out)
    output = json.loads(vertebra("generate", name, ASKED, *more, "--max-new-tokens", "3", "--json").out)
    assert data["tokens"] == output["tokens"]
    assert len(data["prompt"]) == output["prompt_positions"]


def test_trace_options(vertebra, tmp_path):
    data = json.loads(vertebra("trace", "tiny-llama2", ASKED, "--no-cache", "--max-new-tokens", "2", "--json").out)
    assert data["steps"][1]["passes"][0]["shape"][1] == len(data["prompt"]) + 1
    data = json.loads(vertebra("trace", "tiny-llama2", ASKED, "--chunk", "5", "--max-new-tokens", "1", "--json").out)
    assert len(data["steps"][0]["passes"]) > 1
    done = vertebra("trace", "tiny-llama2", ASKED, "--html", str(tmp_path / "none" / "x.html"))
    assert done.code == 1
    assert "cannot be written" in done.err


@pytest.mark.parametrize("which", ["tiny-llama2", "vla", "document"])
def test_score(vertebra, files, which):
    name = which if which.startswith("tiny") else str(files / which)
    more = () if which.startswith("tiny") else ("--image", str(files / "blue.png"))
    data = json.loads(vertebra("score", name, ASKED, "left", "right", "a cup of tea", *more, "--json").out)
    assert sorted(row["answer"] for row in data["answers"]) == ["a cup of tea", "left", "right"]
    assert sum(row["share"] for row in data["answers"]) == pytest.approx(1)
    totals = [row["log_prob"] for row in data["answers"]]
    assert totals == sorted(totals, reverse=True)
    shown = vertebra("score", name, ASKED, "left", "right", *more)
    assert "share" in shown.out
    if which.startswith("tiny"):
        model = load_backbone(which, inference_mode=True, weights=True)
        ids = [row["tokens"] for row in data["answers"]]
        whole = render(
            [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "a cup of tea"}],
            model.prompt_builder_fn, model.tokenizer, anchor=model.anchor,
        )  # fmt: skip
        tea = next(row["tokens"] for row in data["answers"] if row["answer"] == "a cup of tea")
        start = len(prompt_of(model))
        assert whole.ids[start : start + len(tea)].tolist() == tea  # cut as training cuts it
        assert score(model, prompt_of(model), ids).total[0] == pytest.approx(totals, abs=1e-4)


@pytest.mark.parametrize("command", [["generate"], ["trace", "--json"], ["score", "--json"]])
@pytest.mark.parametrize("typed", [f"{ASKED}\n", f"{ASKED}\r\n", ASKED])
def test_a_hyphen_is_standard_input_everywhere(vertebra, monkeypatch, command, typed):
    def asked(prompt):
        # a time of a step is another each time
        answers = ["yes", "no"] if command[0] == "score" else ["--max-new-tokens", "2"]
        done = vertebra(command[0], "tiny-llama2", prompt, *answers, *command[1:])
        assert done.code == 0, done.err
        return json.loads(done.out)["prompt" if command[0] == "trace" else "answers"] if command[1:] else done.out

    expected = asked(ASKED)
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert asked("-") == expected


def test_no_option_that_is_given_is_passed_over(vertebra, monkeypatch, tmp_path):
    """Empty, out of range, or beside what it cannot go with: each is refused, and the message names it."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi.\n"))
    for options, says in [
        (["--regex", ""], "--regex is empty"),
        (["--regex", "a", "--choice", "b"], "--regex and --choice"),
        (["--num-beams", "0"], "--num-beams"),
        (["--answers", "0"], "--answers"),
        (["--temperature", "1", "--seed", str(2**64)], "seed is"),
        (["--temperature", "1", "--seed", str(-(2**70)), "--num-beams", "2"], "seed is"),
        (["--interactive", "--compile"], "--compile"),
    ]:
        done = vertebra("generate", "tiny-llama2", "Hi.", "--max-new-tokens", "2", *options)
        assert done.code in (1, 2), options
        assert re.search(says, " ".join(done.err.replace("│", " ").split())), (options, done.err)


def test_a_schema_with_a_mark_of_its_encoding_is_read(vertebra, tmp_path):
    (tmp_path / "s.json").write_text('{"enum": ["a"]}', encoding="utf-8-sig")
    done = vertebra("generate", "tiny-llama2", "Hi.", "--json-schema", str(tmp_path / "s.json"))
    assert (done.code, done.out.strip()) == (0, '"a"'), done.err


def test_empty_text_to_be_continued(vertebra):
    """Where the tokenizer puts something before a text there is something to continue; elsewhere there is not."""
    assert vertebra("generate", "tiny-llama2", "", "--raw", "--max-new-tokens", "2").code == 0
    done = vertebra("generate", "tiny-smollm2", "", "--raw", "--max-new-tokens", "2")
    assert done.code == 1
    assert "the text is empty, and `tiny-smollm2` puts nothing before one" in done.err


def test_score_needs_answers(vertebra):
    assert vertebra("score", "tiny-llama2", ASKED).code == 2
    done = vertebra("score", "tiny-llama2", ASKED, "left", "")
    assert done.code == 1
    assert "candidate 1 is empty" in done.err
