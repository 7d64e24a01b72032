"""What a row asks: a conversation, or a text, with its images; or what stands in a document.

{"messages": [{"role", "content"}, …]}, {"conversations": [{"from", "value"}, …]}    an answer at the end is left out
{"prompt": …}, {"question": …}, {"text": …}, {"instruction": …, "input": …}          one question
beside it: "system", "image" or "images" (paths from the file's folder on), "id"
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.data.read.conversations import IMAGE_MARK
from vertebra.data.read.rows import Row
from vertebra.errors import DataError
from vertebra.prompt.conversation import role_name

TEXTS = ("prompt", "question", "text", "instruction")
TURNS = {"messages": ("role", "content"), "conversations": ("from", "value")}


@dataclass(frozen=True, kw_only=True)
class BulkQuestion:
    """One row, as a model is asked."""

    turns: list[dict[str, Any]]
    images: list[str]


@dataclass(frozen=True, kw_only=True)
class DocumentRow:
    """One row that is about a document."""

    document: str
    schema: Any = None
    """None: questions."""
    questions: tuple[str, ...] = ()


def asked_of(row: Row, system: str | None = None) -> BulkQuestion | DocumentRow:
    """What a row asks."""
    fields = row.fields
    if fields.get("document") not in (None, ""):  # "": an empty cell of a CSV
        return _reading(row)
    turns = _turns(fields)
    if turns[-1]["role"] == "assistant":
        turns = turns[:-1]  # what a data set holds to be learned
    if not turns:
        raise DataError("it holds an answer and no question")
    system_prompt = fields.get("system") or system
    if system_prompt and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": system_prompt}, *turns]
    return BulkQuestion(turns=turns, images=[_found(image, row, "an image") for image in _images(fields)])


def id_of(row: Row) -> Any:
    """What a row is called, as JSON can hold it: tables have times, bytes and numbers that it lacks."""
    given = row.fields.get("id")
    if given is None or given != given:  # not a number: what a table has where there is no id
        return None
    try:
        json.dumps(given, allow_nan=False)
    except (TypeError, ValueError):
        return given.decode(errors="backslashreplace") if isinstance(given, bytes) else str(given)
    return given


def _reading(row: Row) -> DocumentRow:
    fields = row.fields
    document = _found(fields["document"], row, "a document")
    if fields.get("system"):
        raise DataError("a row with a document takes no system prompt: its values are copied; leave `system` empty")
    if fields.get("schema"):
        return DocumentRow(document=document, schema=fields["schema"])
    asked = fields.get("question") or fields.get("questions")
    if not asked:
        raise DataError("it names a document and neither a `schema` nor a `question`")
    if not isinstance(asked, str | list):
        raise DataError(f"what it asks of the document is a {type(asked).__name__}; expected a text or a list of texts")
    return DocumentRow(document=document, questions=(asked,) if isinstance(asked, str) else tuple(asked))


def _turns(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    name = next((one for one in (*TURNS, *TEXTS) if fields.get(one)), None)
    if name is None:
        raise DataError(f"it has the columns {list(fields)[:8]}; expected one of {', '.join((*TURNS, *TEXTS))}")
    given = fields[name]
    if isinstance(given, str):
        more = fields.get("input") if name == "instruction" else None
        return [{"role": "user", "content": f"{given}\n\n{more}" if more else given}]
    role, content = TURNS.get(name, TURNS["messages"])
    if not isinstance(given, list) or not all(
        isinstance(one, Mapping) and role in one and content in one for one in given
    ):
        raise DataError(f"`{name}` is no text, and no list of {{{role}, {content}}}")
    images = len(_images(fields))
    return [{"role": role_name(one[role]), "content": _marked(one[content], images)} for one in given]


def _marked(content: Any, images: int) -> Any:
    """Text with `<image>` in it, as LLaVA's data have, as parts."""
    if not isinstance(content, str) or IMAGE_MARK not in content or not images:
        return content
    first, *rest = content.split(IMAGE_MARK)
    parts: list[dict[str, Any]] = [{"type": "text", "text": first}]
    for text in rest:
        parts += [{"type": "image"}, {"type": "text", "text": text}]
    return [part for part in parts if part["type"] == "image" or part["text"]]


def _images(fields: Mapping[str, Any]) -> list[Any]:
    given = fields.get("images") or fields.get("image")
    return [] if given in (None, "") else given if isinstance(given, list) else [given]  # "": an empty cell of a CSV


def _found(given: Any, row: Row, what: str) -> str:
    if not isinstance(given, str):
        raise DataError(f"{what} is a {type(given).__name__}; expected a path")
    path = Path(row.file).parent / given
    if not os.path.isfile(path):
        raise DataError(f"{what} is `{path}`, and there is no such file")
    return str(path)
