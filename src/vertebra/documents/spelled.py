"""JSON as it is written, every value with the characters that spell it; of an answer that was cut off, what came through.

It reads what our own grammar lets a model write, and is not a judge of JSON: at the first thing that it does not know it
stops, as at the end of the text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PLAIN = re.compile(r"null|true|false|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_BLANK = re.compile(r"\s*")


@dataclass
class SpelledValue:
    """A value, from which character on, and up to which."""

    value: Any
    """A text, a number, true, false or None; of records a dict of `SpelledValue`, of lists a list of them."""
    start: int
    end: int
    whole: bool = True
    """It was written to its end."""


def spelled(text: str) -> SpelledValue:
    """The value that a text spells."""
    found, _ = _value(text, _BLANK.match(text).end())  # type: ignore[union-attr]
    return found or SpelledValue(None, 0, len(text), whole=False)


def _value(text: str, at: int) -> tuple[SpelledValue | None, int]:
    if text.startswith("{", at):
        return _many(text, at, "}")
    if text.startswith("[", at):
        return _many(text, at, "]")
    if match := _STRING.match(text, at):
        return SpelledValue(_unescaped(match[1]), at, match.end()), match.end()
    if text.startswith('"', at):
        return SpelledValue(_unescaped(text[at + 1 :]), at, len(text), whole=False), len(text)
    if match := _PLAIN.match(text, at):
        return SpelledValue(json.loads(match[0]), at, match.end()), match.end()
    return None, len(text)


def _many(text: str, at: int, close: str) -> tuple[SpelledValue, int]:
    """The members of a record or a list."""
    start, at, done = at, at + 1, False
    record: dict[str, SpelledValue] = {}
    items: list[SpelledValue] = []
    while at < len(text) and not done:
        at = _BLANK.match(text, at).end()  # type: ignore[union-attr]
        if text.startswith(close, at):
            at, done = at + 1, True
            break
        if text.startswith(",", at):
            at += 1
            continue
        name = ""
        if close == "}":
            key = _STRING.match(text, at)
            colon = key and re.compile(r"\s*:\s*").match(text, key.end())
            if key is None or not colon:
                break
            name, at = _unescaped(key[1]), colon.end()
        found, at = _value(text, at)
        if found is None:
            break
        if close == "}":
            record[name] = found
        else:
            items.append(found)
    return SpelledValue(
        record if close == "}" else items, start, at if done else len(text), whole=done
    ), at if done else len(text)


def _unescaped(text: str) -> str:
    """What a string's letters mean; of a string that was cut off, without the half of an escape."""
    for end in (len(text), *(len(text) - cut for cut in range(1, 7))):
        try:
            return str(json.loads(f'"{text[:end]}"', strict=False))
        except ValueError:
            continue
    return text
