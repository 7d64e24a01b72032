"""Rows answered shard by shard: as each alone, whole files, what was stopped goes on, and nothing else in the folder."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.policies.models import image, policy_model
from vertebra import generate, load
from vertebra.bulk import BulkSettings, run_rows
from vertebra.bulk.answering import Shard, shards
from vertebra.documents.extract import ask, extract
from vertebra.errors import ConfigError, VertebraError
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
        {"document": "a.json", "question": "What is bought?", "system": "Be short."},
        {"prompt": "Hi."},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = run_rows("tiny-smollm2", tmp_path / "rows.jsonl", tmp_path / "out", replace(ASK, shard=8))
    found, model = entries(tmp_path / "out"), load("tiny-smollm2")
    alone = [
        extract(model, tmp_path / "a.json", {"total": "number"}, max_new_tokens=5),
        ask(model, tmp_path / "a.json", "What is bought?", max_new_tokens=5),
    ]
    for entry, one in zip(found, alone, strict=False):
        assert {name: entry[name] for name in ("fields", "errors")} == {
            name: json.loads(one.to_json())[name] for name in ("fields", "errors")
        }
        assert entry["answer"] == json.loads(json.dumps(one.values))
    assert "neither a `schema` nor a `question`" in found[2]["error"]
    assert "no such file" in found[3]["error"]
    assert "takes no system prompt" in found[4]["error"]
    assert (made.errors, "answer" in found[5]) == (3, True)


@pytest.mark.parametrize(
    ("settings", "unheard"),
    [
        ({"system": "Answer in French."}, "system"),
        ({"decoding": {"max_new_tokens": 5, "temperature": 0.7, "seed": 1}}, "temperature"),
        (
            {"decoding": {"max_new_tokens": 5, "stop_strings": ["."], "top_k": 4, "temperature": 1.0}},
            "stop_strings, top_k, temperature",
        ),
    ],
)
def test_what_a_document_cannot_heed_is_an_error_of_its_row_alone(tmp_path, settings, unheard):
    write_pages(Document((Page.of([Line("Tea", Box(10, 30, 60, 40))], size=(100, 100)),), "a"), tmp_path / "a.json")
    rows = [{"document": "a.json", "question": "What is bought?"}, {"prompt": "Hi."}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = run_rows("tiny-smollm2", tmp_path / "rows.jsonl", tmp_path / "out", BulkSettings(**settings))
    page, text = entries(tmp_path / "out")
    assert page["error"].startswith(f"{unheard}: a row with a document")
    assert "answer" in text
    assert (made.rows, made.errors) == (2, 1)


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


def test_every_drawn_row_is_what_it_is_alone_with_its_own_seed(tmp_path):
    """Also where all ask the same, whatever the batch, the shard, and the rows that fail beside it."""
    lines = [json.dumps({"prompt": "Hi."})] * 9
    lines[4] = json.dumps({"prompt": "word " * 5000})  # its batch is answered row by row
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    decoding = {"max_new_tokens": 8, "temperature": 1.5, "seed": 3}
    run_rows(
        "tiny-llama2", tmp_path / "rows.jsonl", tmp_path / "out", BulkSettings(shard=7, batch=3, decoding=decoding)
    )
    model, found = load("tiny-llama2"), entries(tmp_path / "out")
    assert "error" in found.pop(4)
    for one in found:
        assert one["answer"] == generate(model, "Hi.", **{**decoding, "seed": 3 + one["row"]}).text[0]
    assert len({one["answer"] for one in found}) == len(found), "the same question asked again is drawn again"


@pytest.mark.parametrize(
    ("decoding", "says"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"seed": 3}, "seed would have no effect"),
        ({"temperature": 1.0, "seed": [1, 2]}, "one whole number"),
        ({"temperature": 1.0, "num_return_sequences": 2}, "one answer"),
        ({"max_new_token": 3}, "Did you mean `max_new_tokens`"),
    ],
)
def test_a_setting_that_is_wrong_for_every_row_is_one_error_before_anything_is_written(rows, tmp_path, decoding, says):
    with pytest.raises(VertebraError, match=says):
        run_rows("tiny-llama2", rows, tmp_path / "out", BulkSettings(decoding=decoding))
    assert not (tmp_path / "out").exists()


def test_other_weights_under_the_same_name_are_another_run(rows, tmp_path):
    run_rows("tiny-llama2", rows, tmp_path / "out", ASK, dtype="float32")
    run_rows("tiny-llama2", rows, tmp_path / "out", ASK, dtype="float32", device="cpu", attn="eager")
    for options in ({"dtype": "bfloat16"}, {}):
        with pytest.raises(ConfigError, match=r"options: there .*float32"):
            run_rows("tiny-llama2", rows, tmp_path / "out", ASK, **options)


def test_a_run_that_could_not_begin_binds_nobody(rows, tmp_path):
    with pytest.raises(VertebraError, match="unknown dtype"):
        run_rows("tiny-llama2", rows, tmp_path / "out", ASK, dtype="flaot32")
    assert run_rows("tiny-llama2", rows, tmp_path / "out", ASK, dtype="float32").rows == 10


@pytest.mark.parametrize("name", ["run.json", "answers-00001.jsonl"])
@pytest.mark.parametrize("content", ["{", "[]", "5\n"])
def test_a_damaged_file_of_a_run_is_named(rows, tmp_path, name, content):
    run_rows("tiny-llama2", rows, tmp_path / "out", ASK)
    (tmp_path / "out" / name).write_text(content)
    with pytest.raises(VertebraError, match=name):
        run_rows("tiny-llama2", rows, tmp_path / "out", ASK)


def test_whatever_a_table_calls_its_rows_the_answers_are_json(tmp_path):
    def strict(name: str):
        raise AssertionError(f"{name} is no JSON")

    names = [
        (datetime(2026, 1, 2), "2026-01-02 00:00:00"), (date(2026, 1, 2), "2026-01-02"), (b"a\xff", "a\\xff"),
        (Decimal("1.50"), "1.50"), (float("nan"), None), ([1.0, float("inf")], "[1.0, inf]"), ({"a": 1}, {"a": 1}),
        ("é", "é"), (7, 7), (True, True), (timedelta(hours=1), "1:00:00"),
    ]  # fmt: skip
    for number, (given, expected) in enumerate(names):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"id": [given], "prompt": ["Hi."]}), path)
        run_rows("tiny-llama2", path, tmp_path / f"out{number}", ASK)
        text = (tmp_path / f"out{number}" / "answers-00000.jsonl").read_text()
        entry = json.loads(text, parse_constant=strict)
        assert (entry.get("id"), "answer" in entry) == (expected, True)


def test_empty_cells_of_a_table_are_what_is_left_out(tmp_path):
    (tmp_path / "rows.csv").write_text("prompt,system,image,images,document\nHi.,,,,\n")
    run_rows("tiny-llama2", tmp_path / "rows.csv", tmp_path / "out", ASK)
    (found,) = entries(tmp_path / "out")
    assert found["answer"] == generate(load("tiny-llama2"), "Hi.", max_new_tokens=5).text[0]


def test_no_kind_of_value_under_any_name_ends_a_run(tmp_path):
    names = (
        "messages",
        "conversations",
        "prompt",
        "question",
        "text",
        "instruction",
        "document",
        "schema",
        "questions",
    )
    values = [5, 1.5, True, [], {}, [5], [[]], [{}], {"a": 1}, [None], "", " ", "none.png", "\ud800"]
    (tmp_path / "a.txt").write_text("TOTAL 9.50\n")
    rows = [{name: value} for name in (*names, "image", "images") for value in values]
    rows += [
        {"prompt": "Hi.", name: value} for name in ("system", "image", "images", "id", "input") for value in values
    ]
    rows += [{"document": "a.txt", name: value} for name in ("schema", "question", "questions") for value in values]
    rows += [{"messages": [{"role": role, "content": content}]} for role in values for content in values[:6]]
    rows += [{"messages": [{"role": "user", "content": content}]} for content in values]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asking = BulkSettings(shard=1000, decoding={"max_new_tokens": 1})
    made = run_rows("tiny-smollm2", tmp_path / "rows.jsonl", tmp_path / "out", asking)
    assert made.rows == len(rows)
    assert all(("answer" in one) != ("error" in one) for one in entries(tmp_path / "out"))


def test_a_folder_has_one_writer(rows, tmp_path):
    """Who comes second is refused at once, before the first has an answer and after; then it finds everything done."""
    out, refused = tmp_path / "out", []

    def second(done, total):
        with pytest.raises(ConfigError, match=r"is being written by another run.*give the command again"):
            run_rows("tiny-llama2", rows, out, ASK)
        refused.append(done)

    run_rows("tiny-llama2", rows, out, ASK, progress=second)
    assert refused == [0, 4, 8, 10]
    before = entries(out)
    assert sorted(path.name for path in out.iterdir()) == [*(f"answers-0000{n}.jsonl" for n in range(3)), "run.json"]
    assert run_rows("tiny-llama2", rows, out, ASK).rows == 10
    assert entries(out) == before


def test_what_a_killed_run_held_is_free(rows, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.lock").write_text("")  # it was killed before it wrote anything
    assert run_rows("tiny-llama2", rows, out, ASK).errors == 0
    assert not (out / "run.lock").exists()
