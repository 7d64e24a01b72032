"""`prepare`: the same table from memory, cache and several processes; keys that follow every change; faults told once."""

from __future__ import annotations

import json
import os
import pickle
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vertebra import log
from vertebra.data.encode.cache import MANIFEST, Cache
from vertebra.data.encode.encoders import TextEncoder, WordEncoder
from vertebra.data.encode.prepare import prepare
from vertebra.data.read.files import JsonLines
from vertebra.data.read.open import open_source
from vertebra.data.samples.table import RowChunk, Table, documents_of
from vertebra.errors import ConfigError, DataError

from .tokenizers import tokenizer_of

ROWS = [{"text": f"row {i} of the file, word {i * 7}" * (i % 3)} for i in range(2300)]


def rows_of(table: Table) -> list[list[int]]:
    return [table.vectors(index)["ids"].tolist() for index in range(len(table))]


def expected(tokenizer, rows=ROWS) -> list[list[int]]:
    """The slow plain version: one text at a time, BOS by the tokenizer's own habit, EOS behind."""
    return [[*tokenizer(row["text"]).input_ids, tokenizer.eos_token_id] for row in rows if row["text"].strip()]


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gpt2"])
def test_memory_cache_and_processes_agree(name, jsonl, tmp_path):
    path = jsonl([{**row, "text": row["text"] or "x"} for row in ROWS])
    tokenizer = tokenizer_of(name)
    encoder = TextEncoder(tokenizer)
    held = prepare(path, encoder, cache=False)
    assert rows_of(held) == expected(tokenizer, [{"text": row["text"] or "x"} for row in ROWS])
    assert held.where(1500) == f"{path}:1501"
    cached = prepare(path, encoder, cache=tmp_path / "one")
    again = prepare(path, encoder, cache=tmp_path / "one")
    several = prepare(path, encoder, cache=tmp_path / "two", num_proc=2)
    for table in (cached, again, several):
        assert rows_of(table) == rows_of(held)
        assert [table.where(i) for i in (0, 999, 1000, 2299)] == [held.where(i) for i in (0, 999, 1000, 2299)]
        assert table.fingerprint() == held.fingerprint()
        assert table.tokens == held.tokens


@pytest.mark.parametrize("num_proc", [1, 2])
@pytest.mark.parametrize("encoder", [TextEncoder, WordEncoder])
def test_a_cached_table_lies_in_spans_as_one_in_memory(encoder, num_proc, jsonl, gpt2, tmp_path):
    """What a table costs to write, open and hold goes by its chunks: one for each span of units, never one a row."""
    path = jsonl([{"text": "x" if i % 400 else None} for i in range(2300)])
    held = prepare(path, encoder(gpt2), cache=False, on_bad="skip")
    cached = prepare(path, encoder(gpt2), cache=tmp_path / "c", num_proc=num_proc, on_bad="skip")
    assert [len(chunk) for chunk in held.chunks] == [1000, 1000, 300]
    assert [len(chunk) for chunk in cached.chunks] == [len(chunk) for chunk in held.chunks]
    assert cached.faults == held.faults
    assert len(held.faults) == 6


def test_an_entry_laid_out_as_before_is_made_again(jsonl, gpt2, tmp_path):
    path = jsonl(ROWS[1:5])
    first = prepare(path, TextEncoder(gpt2), cache=tmp_path / "c")
    (manifest,) = (tmp_path / "c").glob(f"*/{MANIFEST}")
    old = {name: value for name, value in json.loads(manifest.read_text()).items() if name != "layout"}
    manifest.write_text(json.dumps(old))
    again = prepare(path, TextEncoder(gpt2), cache=tmp_path / "c")
    assert json.loads(manifest.read_text()) != old
    assert again.fingerprint() == first.fingerprint(), "the same data: a run that was stopped goes on"
    assert rows_of(again) == rows_of(first)


def test_a_stream_of_unknown_length_is_held(gpt2):
    table = prepare(lambda: (row for row in ROWS if row["text"]), TextEncoder(gpt2), cache=True)
    assert rows_of(table) == expected(gpt2)
    exactly_one_span = prepare(iter(["a"] * 1000), TextEncoder(gpt2))
    assert len(exactly_one_span) == 1000
    assert exactly_one_span.fingerprint() == prepare(iter(["a"] * 1000), TextEncoder(gpt2)).fingerprint()
    assert exactly_one_span.fingerprint() != prepare(iter(["b"] * 1000), TextEncoder(gpt2)).fingerprint()


def test_nothing_is_read_again_when_nothing_changed(jsonl, gpt2, tmp_path):
    path = jsonl(ROWS[1:5])
    prepare(path, TextEncoder(gpt2), cache=tmp_path / "c")
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "c").rglob("*")}
    prepare(path, TextEncoder(gpt2), cache=tmp_path / "c")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "c").rglob("*")} == made


def test_an_entry_opens_without_a_walk_over_the_data(jsonl, gpt2, tmp_path, monkeypatch):
    """Its bytes are hashed, and that is all: a walk over a million lines takes longer than opening their tokens."""
    path = jsonl(ROWS[1:5])
    made = prepare(path, TextEncoder(gpt2), cache=tmp_path / "c")
    read: list[Path] = []
    chunks_of = Cache.read

    def no_walk(self: JsonLines, start: int = 0) -> None:
        raise AssertionError("the units were walked")

    def counted(self: Cache, entry: Path) -> list[RowChunk]:
        read.append(entry)
        return chunks_of(self, entry)

    monkeypatch.setattr(JsonLines, "raw", no_walk)
    monkeypatch.setattr(Cache, "read", counted)
    assert rows_of(prepare(path, TextEncoder(gpt2), cache=tmp_path / "c")) == rows_of(made)
    assert len(read) == 1


def test_a_file_that_went_away(jsonl, gpt2, tmp_path):
    source = open_source(jsonl(ROWS[1:5]))
    source.path.unlink()
    with pytest.raises(DataError, match=r"cannot read .*No such file"):
        prepare(source, TextEncoder(gpt2), cache=tmp_path / "c")


def test_every_change_is_another_entry(jsonl, gpt2, tmp_path):
    path = jsonl(ROWS[1:5])
    prints = [prepare(path, TextEncoder(gpt2), cache=tmp_path / "c").fingerprint()]
    prints.append(prepare(path, TextEncoder(gpt2, stop=""), cache=tmp_path / "c").fingerprint())
    prints.append(prepare(path, WordEncoder(gpt2), cache=tmp_path / "c").fingerprint())
    other = tokenizer_of("tiny-pythia")
    prints.append(prepare(path, TextEncoder(other), cache=tmp_path / "c").fingerprint())
    path.write_text(json.dumps({"text": "new"}) + "\n")
    prints.append(prepare(path, TextEncoder(gpt2), cache=tmp_path / "c").fingerprint())
    assert len(set(prints)) == 5
    assert len(list((tmp_path / "c").iterdir())) == 5


def test_a_token_added_to_the_tokenizer_is_another_entry(jsonl, tmp_path):
    """No probe string holds it, no id of the text changes; the old cache is left alone all the same."""
    from transformers import AutoTokenizer

    from vertebra.backbone.tiny import tiny_checkpoint

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-gpt2"))
    path = jsonl(ROWS[1:5])
    before = prepare(path, TextEncoder(tokenizer), cache=tmp_path / "c").fingerprint()
    tokenizer.add_tokens(["zzqqzz"])
    assert prepare(path, TextEncoder(tokenizer), cache=tmp_path / "c").fingerprint() != before


def test_faults_go_through_the_cache(jsonl, gpt2, tmp_path, caplog):
    path = jsonl([{"text": "a"}, {"txt": "b"}, {"text": "c"}])
    with open(path, "a") as file:
        file.write("{broken\n")
    for cache in (False, tmp_path / "c", tmp_path / "c"):
        with pytest.raises(DataError) as caught:
            prepare(path, TextEncoder(gpt2), cache=cache)
        assert "2 of 4 rows" in str(caught.value)
        assert f"{path}:2: missing column" in str(caught.value)
        assert f"{path}:4: malformed JSON" in str(caught.value)
    with caplog.at_level("WARNING", logger="vertebra"):
        table = prepare(path, TextEncoder(gpt2), cache=tmp_path / "c", on_bad="skip")
    assert "left out 2 of 4" in caplog.text
    assert [table.where(i) for i in range(2)] == [f"{path}:1", f"{path}:3"]


def test_empty_files_and_wrong_kinds(tmp_path, jsonl, gpt2):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "blank.txt").write_text("\n\n")
    for name in ("empty.jsonl", "blank.txt"):
        for cache in (False, tmp_path / "c"):
            with pytest.raises(DataError, match="is empty"):
                prepare(tmp_path / name, TextEncoder(gpt2), cache=cache)
    path = jsonl([{"prompt": "a", "completion": "b"}])
    with pytest.raises(DataError, match="takes text, this row is a conversation"):
        prepare(path, TextEncoder(gpt2), cache=False)
    with pytest.raises(ConfigError, match="num_proc"):
        prepare(path, TextEncoder(gpt2), num_proc=0)


def test_weights_of_rows(jsonl, gpt2, tmp_path):
    path = jsonl([{"text": "a b"}, {"text": "a b", "weight": 3}])
    for cache in (False, tmp_path / "c"):
        table = prepare(path, TextEncoder(gpt2), cache=cache)
        assert "weight" not in table.vectors(0)
        assert set(table.vectors(1)["weight"].tolist()) == {3.0}
        assert table.sequence(0).weight.tolist() == [1.0] * len(table.sequence(0))
        assert table.scales(0, 2).tolist() == [1.0, 3.0]


@pytest.mark.parametrize("span", [(0, 5), (3, 40), (0, 10**9), (7, 7)])
def test_the_stream_is_the_rows_in_order(span, jsonl, gpt2, tmp_path, monkeypatch):
    monkeypatch.setattr("vertebra.data.encode.prepare.SPAN", 3)
    table = prepare(jsonl(ROWS[:20]), TextEncoder(gpt2), cache=tmp_path / "c")
    assert len(table.chunks) > 3
    whole = [token for row in rows_of(table) for token in row]
    start, stop = span[0], min(span[1], len(whole))
    assert table.stream("ids", start, stop).tolist() == whole[start:stop]
    slow = [index for index, row in enumerate(rows_of(table)) for _ in row][start:stop]
    pieces = [sample for sample, low, high in documents_of(table, start, stop) for _ in range(high - low)]
    assert pieces == slow


def test_long_texts_are_encoded_in_small_batches(gpt2, monkeypatch):
    monkeypatch.setattr("vertebra.data.encode.prepare.HELD", 100)
    texts = ["word " * 30] * 7
    table = prepare(texts, TextEncoder(gpt2), cache=False)
    assert len(table.chunks) == 7
    assert rows_of(table) == expected(gpt2, [{"text": text} for text in texts])


def test_a_cache_folder_that_cannot_be_written(tmp_path, gpt2, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        prepare(["a"], TextEncoder(gpt2), cache=tmp_path / "file" / "cache")
    tokenizer_of("tiny-gpt2")
    monkeypatch.setenv("VERTEBRA_CACHE", "/proc/vertebra")  # read-only for everybody, root too
    with caplog.at_level("WARNING", logger="vertebra"):
        assert len(prepare(["a"], TextEncoder(gpt2))) == 1
    assert "working in memory" in caplog.text


def test_a_read_only_cache_is_read(tmp_path, gpt2, monkeypatch):
    """A cache made once and shared: its entries serve, and only what it lacks would have to be written."""
    prepare(["a b c"], TextEncoder(gpt2), cache=tmp_path)

    def refuse(self: Cache) -> None:
        raise DataError(f"the cache folder {self.folder} cannot be written")

    monkeypatch.setattr(Cache, "check_writable", refuse)
    assert len(prepare(["a b c"], TextEncoder(gpt2), cache=tmp_path)) == 1
    with pytest.raises(DataError, match="cannot be written"):
        prepare(["d"], TextEncoder(gpt2), cache=tmp_path)


FULL = """
import resource, signal, sys
from tests.data.tokenizers import tokenizer_of
from vertebra.data.encode.encoders import TextEncoder
from vertebra.data.encode.prepare import prepare
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
encoder = TextEncoder(tokenizer_of("tiny-gpt2"))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # the disk, as far as this process can see
prepare(["some words " * 50] * 1000, encoder, cache=sys.argv[1], num_proc=int(sys.argv[2]))
"""


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_disk_that_fills_up(tmp_path, num_proc):
    paths = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HOME": str(tmp_path / "hf")}
    arguments = [sys.executable, "-c", FULL, str(tmp_path / "c"), str(num_proc)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "DataError: the disk of the cache folder" in done.stderr
    assert list((tmp_path / "c").iterdir()) == []


def test_a_damaged_entry_is_reported(tmp_path, gpt2):
    prepare(["a b c"], TextEncoder(gpt2), cache=tmp_path)
    (entry,) = tmp_path.iterdir()
    next(entry.glob("*.arrow")).write_bytes(b"nothing")
    with pytest.raises(DataError, match="damaged"):
        Cache(tmp_path).read(entry)
    with pytest.raises(DataError, match="damaged"):
        prepare(["a b c"], TextEncoder(gpt2), cache=tmp_path)


def test_a_cached_table_is_sent_to_other_processes_by_its_name(jsonl, gpt2, tmp_path):
    path = jsonl([{"text": "word " * 50}] * 200)
    for cache, most in ((tmp_path / "c", 2000), (False, 10**6)):
        table = prepare(path, TextEncoder(gpt2), cache=cache)
        sent = pickle.dumps(table)
        assert len(sent) < most
        again = pickle.loads(pickle.dumps(pickle.loads(sent)))
        assert rows_of(again) == rows_of(table)
        assert again.fingerprint() == table.fingerprint()


def test_bars_are_for_terminals(monkeypatch, capfd, gpt2, tmp_path):
    prepare(["a"] * 10, TextEncoder(gpt2), cache=tmp_path)
    assert capfd.readouterr() == ("", "")
    code = (
        "from data.tokenizers import tokenizer_of\nfrom vertebra.data.encode.encoders import TextEncoder\n"
        "from vertebra.data.encode.prepare import prepare\n"
        f"for cache in (False, {str(tmp_path / 'bar')!r}):\n"
        "    prepare(['a b'] * 1500, TextEncoder(tokenizer_of('tiny-gpt2')), cache=cache)\n"
    )
    leader, follower = pty.openpty()
    paths = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "120", "TERM": "xterm"}
    child = subprocess.Popen([sys.executable, "-c", code], stderr=follower, stdout=follower, env=environment)
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert child.wait() == 0
    assert b"tokenizing" in shown
    assert b"1500/1500" in shown
    assert b"rows/s" in shown


def test_no_warning_is_left_in_the_log(caplog, jsonl, gpt2, tmp_path):
    log.forget_warned()
    with caplog.at_level("WARNING", logger="vertebra"):
        table = prepare(jsonl(ROWS[1:5]), TextEncoder(gpt2), cache=tmp_path / "c")
    assert caplog.text == ""
    assert np.array_equal(table.starts[1:], np.cumsum(table.lengths))
