"""Conversations in their five spellings → one: a list of `{role, content}` with the images taken out in order.

The content of a message is text, or a list of parts (`{"type": "text", …}`, `{"type": "image"}`), as the prompt
builders take it. A row that says something else raises `BadRow` with the reason; the caller adds file and line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vertebra.errors import PromptError, did_you_mean
from vertebra.prompt.conversation import role_name, turns_of

IMAGE_MARK = "<image>"
MISSING_IMAGE = "missing image"
"""How the fault begins that a later scan may not find again."""

_HALF = re.compile("[\ud800-\udfff]")


class BadRow(Exception):
    """A row that does not say what its format says; for this package only, a `Fault` is made of it."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns, and the images that their image parts stand for, in order."""

    messages: tuple[dict[str, Any], ...]
    """`{"role", "content"}`, and `"weight"` where a message counts more or less than others."""
    images: tuple[Any, ...] = ()
    """Paths, or images already in memory."""
    weight: float = 1.0

    def with_images(self, folder: Path, *, given: bool) -> Conversation:
        """The image paths made whole; one that does not exist is a `BadRow`."""
        found: list[Any] = []
        for image in self.images:
            if not isinstance(image, str):
                found.append(image)
                continue
            path = folder / image
            if not os.path.isfile(path):  # unlike `is_file`, it takes names that no file system takes
                hint = "" if given else "; say where the images lie: images=FOLDER (--images)"
                raise BadRow(f"{MISSING_IMAGE}: {image:.200} is not in {folder}{hint}")
            found.append(os.path.abspath(path))
        return replace(self, images=tuple(found))


def messages(fields: Mapping[str, Any], columns: tuple[str, ...]) -> Conversation:
    """`messages`: the Hugging Face and OpenAI form; `weights`, or a message's own `weight`, says what counts."""
    given = _listed(fields, columns[0])
    weights = fields.get("weights")
    if weights is not None and (not isinstance(weights, list) or len(weights) != len(given)):
        count = len(weights) if isinstance(weights, list) else repr(weights)
        raise BadRow(f"weights of the wrong length: {count} for {len(given)} messages")
    images: list[Any] = list(fields.get("images") or ())
    turns = []
    for number, message in enumerate(given):
        role = _speaker(message, "role", number)
        content = message.get("content")
        if isinstance(content, list):
            content = [_part(part, number, images) for part in content]
        elif not isinstance(content, str):
            raise BadRow(f"bad message: `content` of message {number + 1} is {_kind(content)}, expected text or parts")
        weight = weights[number] if weights is not None else message.get("weight")
        turns.append({"role": role, "content": content} | ({} if weight is None else {"weight": weight_of(weight)}))
    slots = sum(
        part["type"] == "image" for turn in turns if isinstance(turn["content"], list) for part in turn["content"]
    )
    if slots != len(images):
        raise BadRow(f"images do not match: {len(images)} images for {slots} image parts")
    return _checked(turns, images, fields)


def sharegpt(fields: Mapping[str, Any], columns: tuple[str, ...]) -> Conversation:
    """`conversations`: ShareGPT's form, and LLaVA's, where `<image>` in the text stands for the next image."""
    given = _listed(fields, columns[0])
    image = fields.get("image")
    images = [] if image is None or image == "" else list(image) if isinstance(image, list) else [image]
    turns = turns_of([], [], system=_system(fields))
    for number, message in enumerate(given):
        role = _speaker(message, "from", number)
        value = message.get("value")
        if not isinstance(value, str):
            raise BadRow(f"bad message: `value` of message {number + 1} is {_kind(value)}, expected text")
        turns.append({"role": role, "content": value})
    if images:
        _place_images(turns, len(images))
    return _checked(turns, images, fields)


def alpaca(fields: Mapping[str, Any], columns: tuple[str, ...]) -> Conversation:
    """`instruction`, an optional `input` below it, and `output`."""
    instruction, output = (text_of(fields, name) for name in columns)
    more = fields.get("input")
    if more is not None and not isinstance(more, str):
        raise BadRow(f"bad column: `input` is {_kind(more)}, expected text")
    asked = f"{instruction}\n\n{more}" if more and more.strip() else instruction
    return _checked(turns_of([asked], [output], system=_system(fields)), [], fields)


def prompt_completion(fields: Mapping[str, Any], columns: tuple[str, ...]) -> Conversation:
    """`prompt` and `completion`: text, or both as lists of messages."""
    if isinstance(fields[columns[0]], list):
        both = [*_listed(fields, columns[0]), *_listed(fields, columns[1])]
        return messages({**fields, "messages": both}, ("messages",))
    prompt, completion = (text_of(fields, name) for name in columns)
    return _checked(turns_of([prompt], [completion], system=_system(fields)), [], fields)


def text_of(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise BadRow(f"bad column: `{name}` is {_kind(value)}, expected text")
    return _whole(value)


def _whole(text: str) -> str:
    """The text, if it is one: JSON can spell half of a character, which no tokenizer and no file takes."""
    if not text.isascii() and (found := _HALF.search(text)):
        raise BadRow(f"half a character: \\u{ord(found[0]):04x} at {found.start()}, a surrogate without its other half")
    return text


def _checked(turns: list[dict[str, Any]], images: list[Any], fields: Mapping[str, Any]) -> Conversation:
    if not any(turn["role"] == "assistant" for turn in turns):
        raise BadRow("no assistant turn: there is nothing to learn from this conversation")
    for number, turn in enumerate(turns, 1):
        content = turn["content"]
        for text in [content] if isinstance(content, str) else [part.get("text") for part in content if _is_text(part)]:
            if not isinstance(text, str):
                raise BadRow(f"bad message: a text part of message {number} is {_kind(text)}, expected text")
            _whole(text)
    return Conversation(tuple(turns), tuple(images), weight_of(fields.get("weight", 1.0)))


def _is_text(part: Mapping[str, Any]) -> bool:
    return part["type"] == "text"


def _system(fields: Mapping[str, Any]) -> str | None:
    return text_of(fields, "system") if fields.get("system") else None


def _listed(fields: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    value = fields[name]
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise BadRow(f"bad column: `{name}` is {_kind(value)}, expected a list of messages")
    return value


def _speaker(message: Mapping[str, Any], key: str, number: int) -> str:
    role = message.get(key)
    if not isinstance(role, str):
        near = did_you_mean(key, message, count=1)
        raise BadRow(f"bad message: message {number + 1} has no `{key}`; it has {list(message)}.{near}")
    try:
        return role_name(role)
    except PromptError as error:
        raise BadRow(f"bad message: message {number + 1} has an {error}") from None


def _part(part: Any, number: int, images: list[Any]) -> dict[str, Any]:
    """One part of a message's content; the image of an image part is taken out into `images`."""
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise BadRow(f"bad message: a part of message {number + 1} is {_kind(part)}, expected {{type, …}}")
    if part["type"] != "image":
        return part
    image = next((part[key] for key in ("image", "path", "url") if part.get(key) is not None), None)
    if image is not None:
        images.append(image)
    return {"type": "image"}


def _place_images(turns: list[dict[str, Any]], count: int) -> None:
    """Make parts of the texts that hold `<image>`. An image that no text places stands before the first question."""
    marks = sum(turn["content"].count(IMAGE_MARK) for turn in turns)
    if marks == 0:
        first = next((turn for turn in turns if turn["role"] == "user"), None)
        if first is not None:
            first["content"] = [{"type": "image"}] * count + [{"type": "text", "text": first["content"]}]
        return
    if marks != count:
        raise BadRow(f"images do not match: {count} images for {marks} `{IMAGE_MARK}` marks")
    for turn in turns:
        if IMAGE_MARK in turn["content"]:
            turn["content"] = list(_split_at_marks(turn["content"]))


def _split_at_marks(text: str) -> Iterator[dict[str, Any]]:
    """Parts of a text with `<image>` marks; the white space around a mark belongs to the mark."""
    for number, piece in enumerate(text.split(IMAGE_MARK)):
        if number:
            yield {"type": "image"}
        if piece.strip():
            yield {"type": "text", "text": piece.strip()}


def weight_of(value: Any) -> float:
    """A weight as a number; a CSV file gives it as text."""
    try:
        weight = float(value)
    except (TypeError, ValueError, OverflowError):
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise BadRow(f"bad weight: expected a number of 0 or more, got {value!r}")
    return weight


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "an empty list" if not value else f"a list of {type(value[0]).__name__}"
    return "null" if value is None else f"a {type(value).__name__}"
