"""Sources: every kind of file gives its rows, from any unit on, and every fault knows its file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra.data.read.combined import Chain, split
from vertebra.data.read.files import JsonLines, TextFile
from vertebra.data.read.open import open_source
from vertebra.data.read.rows import Fault, Faults, Row, Source
from vertebra.data.read.tables import Items
from vertebra.errors import ConfigError, DataError, NetworkError, UnknownNameError

from .files import FILES

ROWS = [{"text": f"row {i} é"} for i in range(25)]


def texts(source: Source, start: int = 0) -> list[str]:
    found = list(source.rows(start))
    assert not [one for one in found if isinstance(one, Fault)]
    return [one.fields["text"] for one in found if isinstance(one, Row)]


def faults(source: Source) -> list[Fault]:
    return [one for one in source.rows() if isinstance(one, Fault)]


def write_all_kinds(folder: Path) -> dict[str, Path]:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    paths = {
        kind: folder / f"data.{kind}" for kind in ("jsonl", "jsonl.gz", "jsonl.zst", "json", "csv", "tsv", "parquet")
    }
    paths["jsonl"].write_bytes(lines)
    paths["jsonl.gz"].write_bytes(gzip.compress(lines))
    with pa.CompressedOutputStream(str(paths["jsonl.zst"]), "zstd") as file:
        file.write(lines)
    paths["json"].write_text(json.dumps(ROWS, indent=1))
    for kind, mark in (("csv", ","), ("tsv", "\t")):
        paths[kind].write_text(
            "\n".join([f"id{mark}text", *[f'{i}{mark}"{row["text"]}"' for i, row in enumerate(ROWS)]])
        )
    pq.write_table(pa.Table.from_pylist(ROWS), paths["parquet"], row_group_size=10)
    paths["txt"] = folder / "data.txt"
    paths["txt"].write_text("\n".join(row["text"] for row in ROWS))
    paths["txt.gz"] = folder / "data.txt.gz"
    paths["txt.gz"].write_bytes(gzip.compress(paths["txt"].read_bytes()))
    return paths


def test_every_kind_of_file_gives_the_same_rows_from_any_unit_on(tmp_path):
    expected = [row["text"] for row in ROWS]
    for kind, path in write_all_kinds(tmp_path).items():
        source = open_source(path)
        assert texts(source) == expected, kind
        assert source.units() == len(ROWS), kind
        for start in (1, 10, 13, 24, 25):
            assert texts(source, start) == expected[start:], (kind, start)


def test_datasets_lists_functions_and_iterables(tmp_path):
    expected = [row["text"] for row in ROWS]
    held = datasets.Dataset.from_list(ROWS)
    held.save_to_disk(tmp_path / "saved")
    kinds = {
        "held": held,
        "dict": datasets.DatasetDict({"train": held}),
        "streamed": held.to_iterable_dataset(),
        "on disk": str(tmp_path / "saved"),
        "rows": ROWS,
        "strings": expected,
        "function": lambda: iter(ROWS),
    }
    for kind, data in kinds.items():
        source = open_source(data)
        assert texts(source) == expected == texts(source), kind
        assert texts(source, 7) == expected[7:], kind


def test_an_iterator_has_no_second_epoch():
    source = open_source(iter(ROWS))
    assert len(texts(source)) == 25
    with pytest.raises(DataError, match="already read"):
        texts(source)


def test_units_of_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n\nthree\n")
    assert texts(open_source(path)) == ["one", "two", "three"]
    assert texts(open_source(path, text_unit="paragraph")) == ["one\ntwo", "three"]
    assert texts(open_source(path, text_unit="paragraph"), 1) == ["three"]
    assert texts(open_source(path, text_unit="file")) == ["one\ntwo\n\n\nthree\n"]
    with pytest.raises(UnknownNameError, match="Did you mean `line`"):
        open_source(path, text_unit="lines")  # type: ignore[arg-type]


def test_a_folder_of_files_is_one_source(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": f"{name}{i}"}) + "\n" for i in range(3)))
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".hidden.jsonl").write_text("no")
    source = open_source(tmp_path)
    assert texts(source) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert [row.where for row in source.rows(4)] == [f"{tmp_path}/b.jsonl:2", f"{tmp_path}/b.jsonl:3"]
    assert texts(open_source(str(tmp_path / "*.jsonl"))) == texts(source)
    assert texts(open_source([tmp_path / "b.jsonl", tmp_path / "a.jsonl"])) == ["b0", "b1", "b2", "a0", "a1", "a2"]
    (tmp_path / "c.csv").write_text("text\nx")
    with pytest.raises(DataError, match="several kinds"):
        open_source(tmp_path)
    assert len(texts(open_source(tmp_path, pattern="*.jsonl"))) == 6


def test_malformed_json_knows_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": "b"\n[1]\n{"text": "c"}\n')
    found = faults(open_source(path))
    assert [fault.line for fault in found] == [3, 4]
    assert "malformed JSON" in str(found[0])
    assert "expected columns" in str(found[1])
    array = tmp_path / "a.json"
    array.write_text('[\n {"text": "a"},\n {"text": 1,}\n]')
    assert [fault.line for fault in faults(open_source(array))] == [3]


def test_a_pretty_printed_object_is_explained(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{\n "text": "a"\n}\n')
    assert "each line must be a whole object" in str(faults(open_source(path))[0])


def test_invalid_utf8_is_a_fault_of_its_line(tmp_path):
    for suffix, head in (
        ("jsonl", b'{"text": "a"}\n{"text": "\xff"}\n'),
        ("txt", b"a\nb\xff\n"),
        ("csv", b"text\nb\xff\nc\n"),
    ):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(head)
        found = faults(open_source(path))
        assert [fault.line for fault in found] == [2], suffix
        assert "invalid UTF-8" in found[0].message
    (tmp_path / "a.py").write_bytes(b"x = 1\n\ny = '\xff'\n")
    assert faults(open_source(tmp_path / "a.py"))[0].line == 3


def test_ragged_csv_and_bad_headers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,b\n"x\ny",1\nz\n')
    assert [fault.where for fault in faults(open_source(path))] == [f"{path}:4"]
    path.write_text("a,a\n1,2\n")
    with pytest.raises(DataError, match="each column once"):
        list(open_source(path).rows())


def test_a_line_of_10_mb(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": "' + "b" * 10_000_000 + '"}\n{"text": "c"}\n')
    assert [len(text) for text in texts(open_source(path))] == [1, 10_000_000, 1]
    source = open_source(path, max_line=2**20)
    assert [fault.line for fault in faults(source)] == [2]
    assert "10,000,013 bytes" in faults(source)[0].message
    assert source.units() == 3


def test_a_compressed_file_that_breaks_off(tmp_path):
    plain = "".join(json.dumps({"text": f"{i} {i * 7919 % 104729}"}) + "\n" for i in range(20_000)).encode()
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(plain)[:-2000])
    assert "breaks off" in faults(open_source(path))[-1].message
    with pa.CompressedOutputStream(str(tmp_path / "b.jsonl.zst"), "zstd") as file:
        file.write(plain)
    whole = (tmp_path / "b.jsonl.zst").read_bytes()
    (tmp_path / "b.jsonl.zst").write_bytes(whole[: len(whole) // 2])
    assert "breaks off" in faults(open_source(tmp_path / "b.jsonl.zst"))[-1].message


def test_a_hub_name_without_a_network():
    for name in ("nobody/nothing", "hub:nothing"):
        with pytest.raises(NetworkError, match="nothing` is neither a path here nor to be had from the hub"):
            open_source(name)


def test_what_is_no_source(tmp_path):
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(DataError, match=r"Did you mean `train\.jsonl`"):
        open_source(tmp_path / "trian.jsonl")
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(DataError, match="unknown suffix"):
        open_source(tmp_path / "a.xyz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no readable file"):
        open_source(tmp_path / "empty")
    with pytest.raises(DataError, match="no file matches"):
        open_source(str(tmp_path / "*.parquet"))
    with pytest.raises(DataError, match="cannot read rows"):
        open_source(7)
    with pytest.raises(DataError, match="Mixture"):
        open_source({"a": ROWS})
    with pytest.raises(UnknownNameError, match="train"):
        open_source(datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}), split="trian")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="as Parquet"):
        list(open_source(tmp_path / "bad.parquet").rows())


def test_fingerprints_follow_the_content(jsonl):
    path = jsonl(ROWS)
    first = open_source(path).fingerprint()
    assert first == open_source(path).fingerprint()
    assert first != open_source(jsonl(ROWS[1:])).fingerprint()
    assert open_source(ROWS).fingerprint() != open_source(ROWS[1:]).fingerprint()
    assert open_source(lambda: iter(ROWS)).fingerprint() is None


def test_faults_are_all_counted_and_listed():
    faults = Faults()
    for line in range(1, 31):
        faults.add(Fault("a.jsonl", line, "malformed JSON: here"))
    with pytest.raises(DataError) as caught:
        faults.settle("a.jsonl", good=70)
    text = str(caught.value)
    assert "30 of 100 rows" in text
    assert "a.jsonl:20: malformed JSON" in text
    assert "and 10 more (30 × malformed JSON)" in text
    Faults(on_bad="skip").settle("a.jsonl", good=1)
    with pytest.raises(UnknownNameError):
        Faults(on_bad="ignore")  # type: ignore[arg-type]


@given(count=st.integers(1, 60), valid=st.floats(0.05, 0.5), seed=st.integers(0, 5), known=st.booleans())
def test_a_split_loses_nothing_and_gives_nothing_twice(count, valid, seed, known):
    items = [str(i) for i in range(count)]
    source = open_source(items if known else (lambda: iter(items)))
    parts = split(source, {"train": 1 - valid, "valid": valid}, seed=seed)
    given_out = [texts(part) for part in parts.values()]
    assert sorted((text for part in given_out for text in part), key=int) == items
    assert [
        texts(part) for part in split(source, {"train": 1 - valid, "valid": valid}, seed=seed).values()
    ] == given_out
    if known:
        assert [part.units() for part in parts.values()] == [len(part) for part in given_out]
        assert count < 2 or all(given_out)


def test_split_by_file_and_its_refusals(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text(f"{number}a\n{number}b\n")
    source = open_source(tmp_path)
    parts = split(source, {"train": 0.8, "valid": 0.2}, by="file")
    assert sorted(texts(parts["train"]) + texts(parts["valid"])) == sorted(texts(source))
    assert len(texts(parts["valid"])) == 4
    assert {text[0] for text in texts(parts["train"])}.isdisjoint(text[0] for text in texts(parts["valid"]))
    with pytest.raises(ConfigError, match="at most 1"):
        split(source, {"train": 0.9, "valid": 0.2})
    with pytest.raises(DataError, match='by="row"'):
        split(TextFile(tmp_path / "0.txt"), {"train": 0.5, "valid": 0.5}, by="file")
    with pytest.raises(UnknownNameError):
        split(source, {"train": 1.0}, by="files")  # type: ignore[arg-type]


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5), start=st.integers(0, 20), walked=st.booleans())
def test_a_chain_can_be_entered_anywhere(sizes, start, walked):
    chain = Chain([Items([f"{i}.{j}" for j in range(size)], str(i)) for i, size in enumerate(sizes)], "chain")
    expected = [f"{i}.{j}" for i, size in enumerate(sizes) for j in range(size)]
    if walked:
        assert texts(chain) == expected
    assert texts(chain, start) == expected[start:]
    assert [raw.number for raw in chain.raw(start)] == list(range(start, len(expected)))


def test_label_names_survive_views():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    held = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)
    source = open_source(held)
    assert source.label_names() == {"label": ["no", "yes"]}
    assert split(source, {"train": 1.0})["train"].label_names() == {"label": ["no", "yes"]}
    assert JsonLines(Path("x")).label_names() == {}


@pytest.mark.parametrize("name", FILES)
def test_no_two_rows_share_a_place(name, tmp_path):
    """A place is what a message names and what a fault is found by again."""
    places = [row.where for row in open_source(str(FILES[name][0](tmp_path))).rows()]
    assert len(set(places)) == len(places)


def test_rows_of_an_array_on_one_line_are_distinguished(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "a"}, 5, {"text": "c"}])[:-1] + ', {"text"')
    rows = list(open_source(path).rows())
    assert [row.where for row in rows] == [f"{path}:1, item {number}" for number in (1, 2, 3, 4)]
    assert [isinstance(row, Fault) for row in rows] == [False, True, False, True]
    path.write_text('[{"text": "a"} {"text": "b"}]')
    assert [row.where for row in open_source(path).rows()] == [f"{path}:1, item 1", f"{path}:1, item 2"]


@pytest.mark.parametrize("bad", ["7" * 5000, "[" * 100_000 + "]" * 100_000], ids=["digits", "deep"])
def test_json_that_python_cannot_hold_is_a_fault_of_its_line(tmp_path, bad):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": ' + bad + '}\n{"text": "b"}\n')
    (tmp_path / "b.json").write_text('[{"text": "a"},\n{"text": ' + bad + '},\n{"text": "b"}]')
    for name, rows in (("a.jsonl", 2), ("b.json", 1)):
        found = list(open_source(tmp_path / name).rows())
        faults = [one for one in found if isinstance(one, Fault)]
        assert len(found) - len(faults) == rows
        assert len(faults) == 1
        assert faults[0].line == 2
        assert "malformed JSON" in str(faults[0])


def test_a_parquet_file_that_is_damaged_inside_is_reported(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"some words {n}" for n in range(500)]}), path)
    data = bytearray(path.read_bytes())
    data[4:400] = bytes(396)  # the pages; the footer that tells of them is whole
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(open_source(path).rows())
