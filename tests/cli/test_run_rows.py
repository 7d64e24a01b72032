"""`vertebra run`: what it prints, what it leaves, and the code with which it ends."""

from __future__ import annotations

import json

import pytest

NAME = "tiny-llama2"
SHORT = ("--max-new-tokens", "3")


@pytest.fixture
def rows(tmp_path):
    """A file of these rows."""

    def made(*rows: dict) -> str:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return made


def entries(folder) -> list[dict]:
    return [json.loads(line) for path in sorted(folder.glob("answers-*")) for line in path.read_text().splitlines()]


def test_rows_with_and_without_an_answer(vertebra, rows, tmp_path):
    path = rows({"prompt": "Where is the cup?"}, {"prompt": 5}, {"prompt": "And the plate?"})
    done = vertebra("run", NAME, path, str(tmp_path / "out"), "--shard", "2", *SHORT)
    assert done.code == 0
    assert "answered: 3 rows" in done.out
    assert "files in" in done.out
    assert "rows with an error instead of an answer: 1" in done.err
    found = entries(tmp_path / "out")
    assert [("answer" in one, "error" in one) for one in found] == [(True, False), (False, True), (True, False)]


def test_json_says_the_same_when_nothing_is_left_to_do(vertebra, rows, tmp_path):
    path, out = rows({"prompt": "Where is the cup?"}), str(tmp_path / "out")
    first = vertebra("run", NAME, path, out, "--json", *SHORT)
    again = vertebra("run", NAME, path, out, "--json", *SHORT)
    assert (first.code, again.code) == (0, 0)
    assert json.loads(first.out) == json.loads(again.out)
    assert json.loads(first.out)["rows"] == 1


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_run_without_a_single_answer_ends_with_1(form, vertebra, rows, tmp_path):
    path = rows({"prompt": 5}, {"prompt": ["x"]})
    done = vertebra("run", NAME, path, str(tmp_path / "out"), *form, *SHORT)
    assert done.code == 1
    assert all("error" in one for one in entries(tmp_path / "out"))
    assert json.loads(done.out)["errors"] == 2 if form else "rows with an error instead of an answer: 2" in done.err


def test_no_rows_have_no_answers(vertebra, tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    done = vertebra("run", NAME, str(tmp_path / "rows.jsonl"), str(tmp_path / "out"), *SHORT)
    assert done.code == 0
    assert "answered: 0 rows" in done.out
