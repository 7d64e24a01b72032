"""A `.json` file that is one array: its items with the lines that they begin on, up to the first fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vertebra.data.read.compressed import open_bytes
from vertebra.data.read.rows import Fault
from vertebra.reading import why_no_json


def starts_with_array(path: Path) -> bool:
    """Whether a `.json` file is one array; else it is read as JSON lines."""
    with open_bytes(path) as file:
        head = file.read(4096)
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def items(text: str, file: str) -> Iterator[tuple[int, Any]]:
    """(line, item) of a JSON array; the first fault ends the walk, since nothing after it can be trusted."""
    decode = json.JSONDecoder().raw_decode
    at, line, counted, number = _past_space(text, 0) + 1, 1, 0, 0
    while True:
        number += 1
        at = _past_space(text, at)
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]":
            return
        try:
            item, at = decode(text, at)
        except (ValueError, RecursionError) as error:
            message = getattr(error, "msg", None) or why_no_json(error)
            broken = getattr(error, "lineno", line)
            yield line, Fault(file, broken, f"malformed JSON: {message}; the rest is not read", number)
            return
        yield line, item
        at = _past_space(text, at)
        if text[at : at + 1] == ",":
            at += 1
        elif text[at : at + 1] != "]":
            line += text.count("\n", counted, at)
            yield line, Fault(file, line, "malformed JSON: expected `,` or `]`; the rest is not read", number + 1)
            return


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n\ufeff":
        at += 1
    return at
