"""A file of pages as text: packed or not, in the encoding that it declares. It knows no format.

A byte order mark comes first, then zeros between letters (UTF-16 without a mark), then the XML declaration, then the `meta`
of HTML; a file that declares nothing is UTF-8. Where bytes do not fit, U+FFFD keeps the row, and a note reports it.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from pathlib import Path

from vertebra.errors import DataError

MOST = 256 * 2**20
"""Bytes of a file that are read; a page takes thousands."""
_HEAD = 4096
"""Bytes of a file that are looked through for what it declares; browsers take 1024."""
_MARKS = (  # UTF-32 before UTF-16, whose mark begins as its own
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_XML = re.compile(rb"""<\?xml\s[^>]*?encoding\s*=\s*["']([\w.:-]{1,40})["']""")
_META = re.compile(rb"""<meta\s[^>]*?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
_BROWSERS = {"iso8859-1": "cp1252", "ascii": "cp1252"}
"""What HTML calls Latin-1 is what Windows calls so: a rule of its standard, for that is what pages hold."""
_NO_CHARSETS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape"}
"""Python's own encodings, which no file declares."""


def text_of_file(path: Path) -> tuple[str, tuple[str, ...]]:
    """The text of a file, and what is to be noted about it."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            raw = file.read(MOST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"`{path}` cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(raw) > MOST:
        raise DataError(f"`{path}` holds more than {MOST // 2**20} MiB; no file of pages does. Cut it into pieces")
    name = encoding_of(raw, f"`{path}`")
    notes: tuple[str, ...] = ()
    try:
        text = raw.decode(name)
    except UnicodeDecodeError as error:
        text = raw.decode(name, errors="replace")
        notes = (
            f"not all of the file is {name.removesuffix('-sig')}: from byte {error.start} on U+FFFD stands for bytes",
        )
    if not text.strip("\ufeff \t\r\n"):
        raise DataError(f"`{path}` is empty; expected a file of pages")
    return text, notes


def encoding_of(raw: bytes, where: str = "the file") -> str:
    """The name of the encoding that a file has."""
    for mark, name in _MARKS:
        if raw.startswith(mark):
            return name
    if b"\0" in raw[:2]:  # the first letter of any file of pages is one of ASCII
        return "utf-16-be" if raw[:1] == b"\0" else "utf-16-le"
    head = raw[:_HEAD].lstrip()
    if not head.startswith(b"<"):  # JSON, say, in whose texts anything may stand
        return "utf-8"
    if found := _XML.match(head):
        return _known(found[1].decode(), where)
    if found := _META.search(head):
        name = _known(found[1].decode(), where)
        return _BROWSERS.get(name, name)
    return "utf-8"


def _known(declared: str, where: str) -> str:
    try:
        name = codecs.lookup(declared).name
        "".encode(name)  # one of bytes to bytes is refused here
    except (LookupError, UnicodeError):
        name = ""
    if not name or name in _NO_CHARSETS:
        raise DataError(f"{where} declares the encoding {declared!r}, which is not known here; save it as UTF-8")
    # a declaration that was read letter by letter stands in neither of these, whatever it declares
    return "utf-8" if name.startswith(("utf-16", "utf-32")) else name
