"""Every example runs and prints what it promises; `generate`, `trace` and `score` on what the two whole models leave behind:
models that have learnt something."""

from __future__ import annotations

import json
import re
import runpy
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from vertebra.decode.call import generate
from vertebra.decode.choose.constraint import AllowedIds
from vertebra.model.encoders.kinds import ENCODERS
from vertebra.model.model import Model
from vertebra.tasks.registry import TASKS

EXAMPLES = Path(__file__).parents[2] / "examples"
ASKED = "What action should the robot take to reach the bar?"
QUESTION = "What is the name?"
LEARNT = "I take the red block and put it on the shelf."

# What each script must print, line by line where the order matters.
PRINTS = {
    "load_and_generate.py": (r"greedy: +\S", r"sampled: +\S", r"dialog: +\S", r"ended by length; .*\[45, 1, 1"),
    "own_data.py": (r"the same losses: True", r"Hot tea\.", r"On the left\.", r"The robot\."),
    "lora_and_merge.py": (r"120 steps", r"bound .*: good", rf"adapter +{LEARNT}", rf"merged +{LEARNT}"),
    "own_encoder.py": (r"\['low', 'high'\]",),
    "own_task.py": (r"right on held-out rows: (9\d|100)%",),
    "own_language_model.py": (r"answer: \S*", *[r"^pass "] * 6),
    "constrained_answers.py": (
        r"on the (left|right)",
        r"(left|right) \d{1,3} cm",
        r"'object': '(cup|plate)'",
        r"7\d\d",
    ),
    "policy.py": (r"centimeters: 10 \d+ \d+ .* 45$", r"how sure of the fourth: 0\.\d+"),
    "step_by_step.py": (r"goes in +positions +cache", r"who sees whom", r"it chose", r"trace\.html"),
}


@pytest.mark.parametrize("name", PRINTS)
def test_example(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [name])
    known = dict(TASKS), dict(ENCODERS)
    with torch.random.fork_rng(devices=[]):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    for table, before in zip((TASKS, ENCODERS), known, strict=True):  # what a script registers is forgotten
        table.clear()
        table.update(before)
    out = capsys.readouterr().out
    for pattern in PRINTS[name]:
        found = re.search(pattern, out, re.MULTILINE)
        assert found, f"{pattern} is not printed:\n{out}"
        out = out[found.end() :]


def test_each_is_short_listed_and_our_own_engine():
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+\.py)\]\(\1\)", page, re.MULTILINE)
    assert listed == [*PRINTS, "vla_like.py", "document_like.py", "serve_with_ray.py"]
    assert set(listed) == {path.name for path in EXAMPLES.glob("*.py")}
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 60, path.name
        assert not re.search(r"(?<!\bvt)\.generate\(|Trainer", text), path.name


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    """The folder of the first example, its names, and two of its frames as files."""
    folder = tmp_path_factory.mktemp("robot")
    names = runpy.run_path(str(EXAMPLES / "vla_like.py"))
    names["main"](folder / "model")
    frames = []
    for place in (2, 5):
        frame = Image.new("RGB", (64, 64), "white")
        frame.paste("blue", (place * 8, 0, place * 8 + 8, 64))
        frame.save(folder / f"{place}.png")
        frames.append(folder / f"{place}.png")
    return folder / "model", names, frames


@pytest.fixture(scope="module")
def receipts(tmp_path_factory):
    """The folder of the second example, and two of its pages: an image and a file of lines each, with the name on it; two
    more with their date."""
    folder = tmp_path_factory.mktemp("receipts")
    names = runpy.run_path(str(EXAMPLES / "document_like.py"))
    names["main"](folder / "model")
    model, pages = Model.load(folder / "model"), []
    for seed, reply in ((2, "Ann"), (5, "Leo"), (0, "3 May"), (3, "9 June")):
        _, features = names["receipt"](model, seed)
        texts = [*names["KEYS"], *(names["VALUES"][seed >> at & 1][at] for at in range(3))]
        lines = [{"text": text, "box": box.tolist()} for text, box in zip(texts, features["boxes"], strict=True)]
        (folder / f"{seed}.json").write_text(json.dumps(lines))
        Image.fromarray(features["image"][0].transpose(1, 2, 0)).save(folder / f"{seed}.png")
        pages.append((("--image", str(folder / f"{seed}.png"), "--page", str(folder / f"{seed}.json")), reply))
    return str(folder / "model"), pages[:2], pages[2:]


def test_the_robot_sees_its_bar(vertebra, robot):
    """Another frame, another action. The command says what the engine says after the same prompt."""
    folder, names, frames = robot
    model = Model.load(folder, inference_mode=True)
    reply = []
    for frame, place in zip(frames, (2, 5), strict=True):
        user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ASKED}]}
        action = {"role": "assistant", "content": [{"type": "action", "ids": [names["FIRST_ACTION"]] * 7}]}
        features = [model.prepare({"image": [frame]})]
        # ready for an action: what stands before it is what training saw
        whole = model.render([user, action], open_turn=True)
        opened = whole.cut(0, len(whole) - 7)
        bins = AllowedIds(range(names["FIRST_ACTION"], names["FIRST_ACTION"] + 8))
        for constraint in (None, bins):
            result = generate(
                model, model.collate([opened], features), max_new_tokens=7, constraint=constraint, eos_token_id=()
            )
            assert result.tokens == [[names["FIRST_ACTION"] + (place + joint) % 8 for joint in range(7)]]
        moves = vertebra(
            "generate", str(folder), ASKED, "--image", str(frame), "--action", "--max-new-tokens", "7", "--json"
        )
        assert json.loads(moves.out)["tokens"] == result.tokens[0], moves.err
        asked = generate(model, model.collate([model.render([user])], features), max_new_tokens=9)
        done = json.loads(
            vertebra("generate", str(folder), ASKED, "--image", str(frame), "--max-new-tokens", "9", "--json").out
        )
        assert done["tokens"] == asked.tokens[0]
        reply.append(vertebra("trace", str(folder), ASKED, "--image", str(frame), "--json"))
    first, second = (json.loads(reported.out)["steps"][0]["candidates"] for reported in reply)
    assert first != second


def test_the_page_is_read(vertebra, receipts):
    """Another page, another name: printed, and as JSON."""
    model, pages, _ = receipts
    for page, name in pages:
        assert vertebra("generate", model, QUESTION, *page).out.strip() == name
        reply = json.loads(vertebra("generate", model, QUESTION, *page, "--json").out)
        assert reply["text"].strip() == name
        assert reply["stop_reason"] == "eos"
        assert reply["passes"] == [reply["prompt_positions"]] + [1] * (len(reply["tokens"]) - 1)
        assert reply["prompt_positions"] > 196 + 6


def test_answers_that_begin_with_a_digit(vertebra, receipts):
    """An open prompt ends with `Out:`; the lone blank before a digit is the model's to say."""
    model, _, dated = receipts
    for page, date in dated:
        assert vertebra("generate", model, "What is the date?", *page).out.strip() == date


def test_a_conversation_about_a_page(vertebra, receipts, monkeypatch):
    """The page stands in the first turn; `/new` brings it again."""
    model, ((page, name), _), _ = receipts
    lines = iter([QUESTION, "And again?", "/new", QUESTION, ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    done = vertebra("generate", model, "--interactive", *page, "--max-new-tokens", "8")
    assert done.code == 0, done.err
    answers = done.out.splitlines()
    assert answers[0].strip() == answers[-1].strip() == name


def test_a_trace_of_each(vertebra, robot, receipts, tmp_path):
    """In the terminal, as JSON and as a page: what was injected, and the choice that was sure."""
    frame = ("--image", str(robot[2][0]))
    for (model, question, given), injected in (
        ((str(robot[0]), ASKED, frame), "4 × image at 1 to 4"),
        ((receipts[0], QUESTION, receipts[1][0][0]), "196 × image at 1 to 196"),
    ):
        target = tmp_path / "trace.html"
        shown = vertebra("trace", model, question, *given, "--html", str(target))
        assert shown.code == 0, shown.err
        assert "inject" in shown.out
        reported = json.loads(vertebra("trace", model, question, *given, "--json").out)
        first = reported["steps"][0]
        assert first["passes"][0]["injected"][0] == injected
        assert [event["name"] for event in first["events"]][:4] == ["encode", "prepare inputs", "embed", "inject"]
        reply = json.loads(vertebra("generate", model, question, *given, "--max-new-tokens", "8", "--json").out)
        assert reported["tokens"] == reply["tokens"]
        source = target.read_text(encoding="utf-8")
        parser = HTMLParser()
        parser.feed(source)
        parser.close()
        assert injected in source
        assert source.count("<section class='step") == len(reported["steps"])


def test_scores_of_each(vertebra, robot, receipts):
    """What stands on the page is likelier than what does not."""
    model, pages, _ = receipts
    for page, name in pages:
        found = json.loads(vertebra("score", model, QUESTION, "Ann", "Leo", "Bob", *page, "--json").out)["answers"]
        assert found[0]["answer"] == name
        assert found[0]["share"] > 0.9
        assert sum(row["share"] for row in found) == pytest.approx(1)
        assert vertebra("score", model, QUESTION, "Ann", "Leo", *page).out.count("%") == 2
    shown = vertebra("score", str(robot[0]), ASKED, "left", "right", "--image", str(robot[2][0]), "--json")
    assert len(json.loads(shown.out)["answers"]) == 2
