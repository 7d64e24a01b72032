"""What readers throw, as errors of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vertebra.errors import CheckpointError, DataError, NetworkError
from vertebra.reading import inside, json_of, read_json, reading


def test_foreign_errors_become_ours_with_a_reason_and_an_advice():
    message = r"`x` cannot be read \(KeyError: 'a'\); copy or save it again"
    with pytest.raises(CheckpointError, match=message) as caught, reading("`x` cannot be read"):
        raise KeyError("a")
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(DataError, match="more memory than there is"), reading("`x`", error=DataError):
        raise MemoryError
    with pytest.raises(CheckpointError) as long, reading("`x`"):
        raise ValueError("word " * 10_000)
    assert len(str(long.value)) < 500


def test_ours_and_interrupts_pass():
    for error in (NetworkError("away"), KeyboardInterrupt(), SystemExit()):
        with pytest.raises(type(error)) as caught, reading("`x`"):
            raise error
        assert caught.value is error
    with pytest.raises(ConnectionError), reading("`x`", passing=(ConnectionError,)):
        raise ConnectionError


def test_a_panic_in_rust_is_no_exception_and_yet_caught():
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(CheckpointError, match="PanicException"), reading("`x`"):
        raise panic("index out of bounds")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "nested too deeply"),
        ("7" * 5000, "thousands of digits"),
        (b"\xff\xfe", "not UTF-8"),
        (b"\xed\xa0\x80", "not UTF-8"),
        ('{"a": 1', "Expecting"),
    ],
    ids=["empty", "deep", "digits", "bytes", "half a character", "cut"],
)
def test_every_fault_of_json_is_a_value_error_with_a_reason(text, why, tmp_path):
    with pytest.raises(ValueError, match=why):
        json_of(text)
    file = tmp_path / "x.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=f"x.json` is not valid JSON .*{why}"):
        read_json(file)


def test_json_is_read_as_ever(tmp_path):
    data = {"a": [1, 2.5, None, "Größe 数据"], "b": {}}
    file = tmp_path / "x.json"
    file.write_text(json.dumps(data), encoding="utf-8-sig")
    assert read_json(file) == data
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_json(tmp_path)


@pytest.mark.parametrize(
    "name", ["../a", "a/../../b", "/etc/hostname", "..", "", "C:\\a", "..\\a", "a\0b", "x" * 300, None, 1, ["a"]]
)
def test_names_that_lead_out_of_a_folder_are_refused(name):
    with pytest.raises(CheckpointError, match=r"index.json` names"):
        inside(name, Path("m/index.json"))


def test_names_in_a_folder_pass():
    for name in ("a.safetensors", "part/a.safetensors", "a..b.safetensors", "...x"):
        assert inside(name, Path("index.json")) == name
