"""Rows answered shard by shard: as each alone, whole files, what was stopped goes on, and nothing else in the folder."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from tests.policies.models import image, policy_model
from vertebra import generate, load
from vertebra.bulk import BulkSettings, run_rows
from vertebra.bulk.answering import Shard, shards
from vertebra.documents.extract import ask, extract
from vertebra.errors import ConfigError
from vertebra.page import Box, Document, Line, Page, write_pages

ASK = BulkSettings(shard=4, batch=3, decoding={"max_new_tokens": 5})
QUESTIONS = [f"Where is cup number {n}?" + " It was here." * (n % 3) for n in range(10)]


def entries(folder) -> list[dict]:
    return [
        json.loads(line) for path in sorted(folder.glob("answers-*.jsonl")) for line in path.read_text().splitlines()
    ]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": f"q{n}", "prompt": text}) + "\n" for n, text in enumerate(QUESTIONS)))
    return path


@pytest.mark.parametrize("units", range(10))
def test_shards_hold_every_unit_once(units):
    made = shards(units, 3)
    assert [at for one in made for at in range(one.start, one.start + one.count)] == list(range(units))
    assert [one.number for one in made] == list(range(len(made)))


def test_each_row_is_answered_as_it_is_alone(rows, tmp_path):
    seen = []
    made = run_rows("tiny-llama2", rows, tmp_path / "out", ASK, progress=lambda done, all: seen.append((done, all)))
    model = load("tiny-llama2")
    found = entries(tmp_path / "out")
    assert [(one["row"], one["id"]) for one in found] == [(n, f"q{n}") for n in range(10)]
    for one, text in zip(found, QUESTIONS, strict=True):
        alone = generate(model, text, max_new_tokens=5)
        assert (one["answer"], one["tokens"]) == (alone.text[0], len(alone.tokens[0]))
    assert (made.rows, made.errors, len(made.files)) == (10, 0, 3)
    assert seen == [(0, 10), (4, 10), (8, 10), (10, 10)]


def test_every_spelling_of_a_question(tmp_path):
    name = "tiny-qwen2"  # its format has a place for a system prompt
    rows = [
        {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "what is learned"}]},
        {"conversations": [{"from": "human", "value": "Hi."}]},
        {"prompt": [{"role": "user", "content": "Hi."}]},
        {"question": "Hi."},
        {"instruction": "Hi."},
        {"instruction": "Hi.", "input": "There."},
        {"prompt": "Hi.", "system": "Be short."},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_rows(name, tmp_path / "rows.jsonl", tmp_path / "out", ASK)
    model = load(name)
    expected = [generate(model, "Hi.", max_new_tokens=5).text[0]] * 5
    expected += [generate(model, "Hi.\n\nThere.", max_new_tokens=5).text[0]]
    expected += [generate(model, "Hi.", system="Be short.", max_new_tokens=5).text[0]]
    assert [one["answer"] for one in entries(tmp_path / "out")] == expected


def test_images_stand_where_they_belong(tmp_path):
    model = policy_model()
    model.save(tmp_path / "model")
    for name in "ab":
        Image.fromarray(image(ord(name))).save(tmp_path / f"{name}.png")
    rows = [
        {"prompt": "What is it?", "image": "a.png"},
        {"prompt": "What is it?"},
        {"conversations": [{"from": "human", "value": "This: <image>\nand?"}], "images": ["b.png"]},
        {"prompt": "What is it?", "image": "none.png"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_rows(str(tmp_path / "model"), tmp_path / "rows.jsonl", tmp_path / "out", ASK)
    found = entries(tmp_path / "out")
    alone = load(tmp_path / "model")
    parts = [{"type": "text", "text": "This: "}, {"type": "image"}, {"type": "text", "text": "\nand?"}]
    asked = [
        ("What is it?", {"images": [tmp_path / "a.png"]}),
        ("What is it?", {}),
        ([{"role": "user", "content": parts}], {"images": [tmp_path / "b.png"]}),
    ]
    assert [one["answer"] for one in found[:3]] == [
        generate(alone, prompt, max_new_tokens=5, **beside).text[0] for prompt, beside in asked
    ]
    assert "none.png" in found[3]["error"]


def test_a_document_is_extracted_as_it_is_alone(tmp_path):
    lines = [Line("TOTAL 9.50", Box(10, 10, 90, 20)), Line("Tea", Box(10, 30, 60, 40))]
    write_pages(Document((Page.of(lines, size=(100, 100)),), "a"), tmp_path / "a.json")
    rows = [
        {"document": "a.json", "schema": {"total": "number"}},
        {"document": "a.json", "question": "What is bought?"},
        {"document": "a.json"},
        {"document": "b.json", "question": "?"},
        {"prompt": "Hi."},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = run_rows("tiny-smollm2", tmp_path / "rows.jsonl", tmp_path / "out", ASK)
    found, model = entries(tmp_path / "out"), load("tiny-smollm2")
    alone = [
        extract(model, tmp_path / "a.json", {"total": "number"}),
        ask(model, tmp_path / "a.json", "What is bought?"),
    ]
    for entry, one in zip(found, alone, strict=False):
        assert {name: entry[name] for name in ("fields", "errors")} == {
            name: json.loads(one.to_json())[name] for name in ("fields", "errors")
        }
        assert entry["answer"] == json.loads(json.dumps(one.values))
    assert "neither a `schema` nor a `question`" in found[2]["error"]
    assert "no such file" in found[3]["error"]
    assert (made.errors, "answer" in found[4]) == (2, True)


def test_a_row_that_cannot_be_answered_is_an_entry_and_takes_no_other_with_it(tmp_path):
    lines = [
        '{"prompt": "Hi."}', "", "{broken", '{"promt": "Hi."}', '{"prompt": 7}', json.dumps({"prompt": "word " * 5000}),
        '{"messages": [{"role": "assistant", "content": "I"}]}', '{"messages": [{"role": "king", "content": "I"}]}',
        '{"prompt": "Hi."}',
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    made = run_rows(
        "tiny-llama2", tmp_path / "rows.jsonl", tmp_path / "out", BulkSettings(shard=20, decoding={"max_new_tokens": 3})
    )
    found = entries(tmp_path / "out")
    assert [one["row"] for one in found] == [0, 2, 3, 4, 5, 6, 7, 8] or [one["row"] for one in found] == list(range(8))
    assert found[0]["answer"] == found[-1]["answer"]
    assert made.errors == 6
    for one, word in zip(
        found[1:-1], ["rows.jsonl:3", "promt", "no text", "positions|tokens", "no question", "king"], strict=True
    ):
        assert any(part in one["error"] for part in word.split("|")), one


def test_what_was_stopped_goes_on_and_what_is_there_stays(rows, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def stopped(work, missing):
        from vertebra.bulk.running import here

        for number, shard in enumerate(here(work, missing)):
            if number == 1:
                raise KeyboardInterrupt
            yield shard

    with pytest.raises(KeyboardInterrupt):
        run_rows("tiny-llama2", rows, out, ASK, spread=stopped)
    there = {path: path.stat().st_mtime_ns for path in out.glob("answers-*")}
    assert len(there) == 2
    asked: list[Shard] = []

    def noted(work, missing):
        from vertebra.bulk.running import here

        asked.extend(missing)
        yield from here(work, missing)

    run_rows("tiny-llama2", rows, out, ASK, spread=noted)
    assert [one.number for one in asked] == [2]
    assert {path: path.stat().st_mtime_ns for path in there} == there
    run_rows("tiny-llama2", rows, tmp_path / "whole", ASK)
    assert entries(out) == entries(tmp_path / "whole")
    assert run_rows("tiny-llama2", rows, out, ASK, spread=lambda work, missing: 1 / 0).rows == 10, "no model is loaded"


def test_another_run_or_anything_else_in_the_folder_is_refused(rows, tmp_path):
    run_rows("tiny-llama2", rows, tmp_path / "out", ASK)
    with pytest.raises(ConfigError, match="settings: there"):
        run_rows("tiny-llama2", rows, tmp_path / "out", BulkSettings(shard=5))
    rows.write_text('{"prompt": "Hi."}\n')
    with pytest.raises(ConfigError, match=r"data: there .*rows: there 10, now 1"):
        run_rows("tiny-llama2", rows, tmp_path / "out", ASK)
    from vertebra.errors import CheckpointError

    with pytest.raises(CheckpointError, match="not empty"):
        run_rows("tiny-llama2", rows, tmp_path, ASK)


def test_drawn_answers_follow_from_the_seed(rows, tmp_path):
    drawn = BulkSettings(shard=4, decoding={"max_new_tokens": 5, "temperature": 1.5, "seed": 3})
    for name in "ab":
        run_rows("tiny-llama2", rows, tmp_path / name, drawn)
    assert entries(tmp_path / "a") == entries(tmp_path / "b")
    other = BulkSettings(shard=4, decoding={"max_new_tokens": 5, "temperature": 1.5, "seed": 4})
    run_rows("tiny-llama2", rows, tmp_path / "c", other)
    assert entries(tmp_path / "a") != entries(tmp_path / "c")
