"""Files in whatever encoding they declare, and rows that are cut at line breaks alone."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
from pathlib import Path

import pytest

from tests.page.formats.test_formats import ONE_PAGE, TEXTS
from vertebra.errors import DataError
from vertebra.page import Box, Line, Page, Word, read_pages, to_text
from vertebra.page.formats.decoding import encoding_of
from vertebra.page.page import line_of

DECLARING = {
    "alto": 'encoding="{}"',
    "page": 'encoding="{}"',
    "hocr": "charset={}",
}
"""Formats whose files declare an encoding, and how."""
WORDS = {"ISO-8859-1": "Café", "windows-1252": "9,50 €", "KOI8-R": "Итого", "Shift_JIS": "合計", "utf-8": "Café €"}


def one(text: str) -> Page:
    return Page.of([line_of([Word(text, Box(1, 2, 30, 12))])], size=(100, 100))


def texts(path: Path) -> list[str]:
    return [line.text for page in read_pages(path, size=(100, 100)) for line in page.lines]


def declared(name: str, text: str, encoding: str) -> str:
    """A file of ours with another declaration; HTML without the one of XML, which would come first."""
    made = to_text(one(text), name)
    if name == "hocr":
        made = made.split("\n", 1)[1].replace("charset=utf-8", f"charset={encoding}")
    else:
        made = made.replace('encoding="UTF-8"', f'encoding="{encoding}"')
    assert DECLARING[name].format(encoding) in made
    return made


@pytest.mark.parametrize("encoding", WORDS)
@pytest.mark.parametrize("name", DECLARING)
def test_a_declared_encoding(name: str, encoding: str, tmp_path: Path):
    path = tmp_path / "x"
    path.write_bytes(declared(name, WORDS[encoding], encoding).encode(encoding))
    assert texts(path) == [WORDS[encoding]]
    assert read_pages(path).pages[0].notes == ()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", TEXTS)
def test_unicode_in_every_width(name: str, encoding: str, tmp_path: Path):
    """With a byte order mark, as PowerShell's `>` writes it; UTF-16 without one too."""
    (tmp_path / "x").write_bytes(to_text(one("Café 合計"), name).encode(encoding))
    assert texts(tmp_path / "x") == ["Café 合計"]


def test_html_calls_the_letters_of_windows_latin(tmp_path: Path):
    (tmp_path / "x").write_bytes(declared("hocr", "9,50 €", "iso-8859-1").encode("cp1252"))
    assert texts(tmp_path / "x") == ["9,50 €"]


def test_a_mark_comes_before_a_declaration_and_what_cannot_be_declared_does_not_count():
    assert encoding_of(codecs.BOM_UTF8 + b'<?xml version="1.0" encoding="ISO-8859-1"?>') == "utf-8-sig"
    assert encoding_of(b'<?xml version="1.0" encoding="UTF-16"?>') == "utf-8"
    assert encoding_of(b'{"text": "<meta charset=koi8-r>"}') == "utf-8"


@pytest.mark.parametrize("name", ["x-unheard", "unicode_escape", "hex", "undefined"])
def test_an_encoding_that_is_none(name: str, tmp_path: Path):
    (tmp_path / "x").write_text(f'<?xml version="1.0" encoding="{name}"?><alto/>')
    with pytest.raises(DataError, match=f"declares the encoding '{name}'.*save it as UTF-8"):
        read_pages(tmp_path / "x")


@pytest.mark.parametrize("name", [*DECLARING, "tesseract", "sroie"])
def test_bytes_that_do_not_fit_are_noted(name: str, tmp_path: Path):
    (tmp_path / "x").write_bytes(to_text(one("Café"), name).encode("latin-1"))
    (made,) = read_pages(tmp_path / "x", size=(100, 100))
    assert made.lines[0].text == "Caf\ufffd"
    assert any("not all of the file is utf-8" in note and "U+FFFD" in note for note in made.notes)


def test_of_json_lines_the_row_that_is_hurt_has_the_note(tmp_path: Path):
    rows = [json.dumps({"size": [9, 9], "lines": [{"text": text}]}, ensure_ascii=False) for text in ("ok", "Café")]
    (tmp_path / "x.jsonl").write_bytes("\n".join(rows).encode("latin-1"))
    assert [len(page.notes) for page in read_pages(tmp_path / "x.jsonl")] == [0, 1]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
@pytest.mark.parametrize("name", TEXTS)
def test_separators_of_lines_that_end_no_row(name: str, mark: str, tmp_path: Path):
    """They stay in the text; a format whose words hold no blanks has a blank for them."""
    made = Page.of([Line(f"a{mark}b", Box(1, 2, 30, 12)), Line("c", Box(1, 20, 30, 32))], size=(100, 100))
    (tmp_path / "x").write_text(to_text(made, name), encoding="utf-8", newline="")
    assert texts(tmp_path / "x") == ["a b" if name in ("tesseract", "hocr") else f"a{mark}b", "c"]
    value = json.loads(to_text(made, "vertebra"))
    rows = [json.dumps(value, ensure_ascii=False)] * 2
    (tmp_path / "x.jsonl").write_text("\r\n".join(rows), encoding="utf-8", newline="")
    assert texts(tmp_path / "x.jsonl") == [f"a{mark}b", "c"] * 2


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["tesseract", "sroie"])
def test_rows_of_others_with_such_letters(name: str, end: str, mark: str, tmp_path: Path):
    rows = to_text(Page.of([Line(f"{n}a@b", Box(1, 2, 30, 12)) for n in range(2)], size=(100, 100)), name)
    (tmp_path / "x").write_bytes(rows.replace("@", mark).replace("\n", end).encode())
    assert texts(tmp_path / "x") == [f"0a{mark}b", f"1a{mark}b"]


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in ONE_PAGE])
def test_damaged_packed_files(name: str, tmp_path: Path):
    """Cut short, and with bytes turned over anywhere: read as it was, or an error of ours."""
    whole = gzip.compress(to_text(one("abc" * 200), name).encode())
    damaged = [whole[:at] for at in (5, 15, len(whole) - 1)]
    damaged += [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(0, len(whole), 9)]
    for number, content in enumerate(damaged):
        path = tmp_path / f"{number}.gz"
        path.write_bytes(content)
        with contextlib.suppress(DataError):
            assert texts(path) == ["abc" * 200]
