"""`POST /v1/chat/completions` and `GET /v1/models`, as OpenAI's clients speak: streaming, images, answers by a JSON schema.

A setting that would be ignored in silence is refused. Without `temperature` or `top_p` the best token is taken.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from vertebra.decode.choose.grammar import json_schema
from vertebra.decode.settings import settings_of
from vertebra.errors import DataError, GenerationError, UnknownNameError
from vertebra.serve.acting import body_of
from vertebra.serve.observing import bounded_image
from vertebra.serve.refusals import Broken, Refusal, refusal_of
from vertebra.serve.service import Service
from vertebra.serve.speaking import AnswerPiece
from vertebra.wire.bounds import Bounds
from vertebra.wire.text import from_json

_SETTINGS = {
    "max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens", "temperature": "temperature",
    "top_p": "top_p", "seed": "seed", "n": "num_return_sequences", "stop": "stop_strings",
}  # fmt: skip
_OWN = ("top_k", "min_p", "repetition_penalty", "min_new_tokens")
"""Settings of ours under their own names, as an OpenAI client's `extra_body` gives them."""
_READ = ("model", "messages", "stream", "stream_options", "response_format")
_WITHOUT_EFFECT = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
_OFF = {"presence_penalty": 0, "frequency_penalty": 0, "logprobs": False, "tools": [], "tool_choice": "none"}
"""Settings that are not offered, with the value that asks for nothing."""
_FINISHED = {
    "eos": "stop",
    "stop string": "stop",
    "constraint": "stop",
    "length": "length",
    "context": "length",
    "time": "length",
}


async def completions(request: Request) -> Response:
    """An answer to a conversation, whole or as it comes."""
    service: Service = request.scope["service"]
    if service.speaker is None:
        raise Refusal("this server has a policy, which acts at /act, and no language model")
    given = from_json(await body_of(request, service.settings), service.settings.bounds)
    if not isinstance(given, Mapping):
        raise DataError("the body is no mapping; expected {messages: [{role, content}, …]}")
    turns, images = turns_of(given.get("messages"), service.settings.bounds)
    options = options_of(given, service.settings.time_limit)
    if images:
        options["images"] = images
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": service.metadata()["model"]}
    pieces = service.speaker.answer(turns, options)
    if not given.get("stream"):
        return JSONResponse(await _whole(head, pieces, options.get("num_return_sequences", 1)))
    with_usage = bool((given.get("stream_options") or {}).get("include_usage"))
    first = await anext(pieces)  # a fault of the request is found before the answer begins
    return StreamingResponse(_streamed(head, first, pieces, with_usage), media_type="text/event-stream")


async def models(request: Request) -> Response:
    """The one model that is served."""
    service: Service = request.scope["service"]
    one = {
        "id": service.metadata()["model"],
        "object": "model",
        "created": int(service.metrics.begun),
        "owned_by": "vertebra",
    }
    return JSONResponse({"object": "list", "data": [one]})


def turns_of(messages: Any, bounds: Bounds) -> tuple[list[dict[str, Any]], list[bytes]]:
    """(the conversation in our words, its images in order)."""
    if not isinstance(messages, list) or not messages:
        raise DataError("`messages` is empty or no list; expected [{role, content}, …]")
    turns, images = [], []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise DataError(f"message {number} is a {type(message).__name__}; expected {{role, content}}")
        role = "system" if message.get("role") == "developer" else message.get("role")
        content = message.get("content")
        if isinstance(content, list):
            parts = []
            for part in content:
                made, image = _part(part, f"message {number}", bounds)
                parts.append(made)
                images += image
            content = parts
        turns.append({"role": role, "content": content})
    return turns, images


def _part(part: Any, where: str, bounds: Bounds) -> tuple[dict[str, Any], list[bytes]]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return {"type": "text", "text": part.get("text")}, []
    if kind != "image_url":
        raise DataError(f"a part of {where} has the type {kind!r:.40}; expected `text` or `image_url`")
    url = part.get("image_url")
    url = url.get("url") if isinstance(url, Mapping) else url
    if not isinstance(url, str) or not url.startswith("data:"):
        raise DataError(f"an image of {where} is no data URL; a server fetches nothing: send data:image/png;base64,…")
    try:
        data = base64.b64decode(url.partition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"an image of {where} is no base64") from None
    return {"type": "image"}, [bounded_image(data, bounds, f"an image of {where}")]


def options_of(given: Mapping[str, Any], time_limit: float) -> dict[str, Any]:
    """Settings of decoding, from those of a request."""
    options: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or name in _READ or name in _WITHOUT_EFFECT:
            continue
        if name in _SETTINGS or name in _OWN:
            options[_SETTINGS.get(name, name)] = value
        elif name not in _OFF:
            raise UnknownNameError("setting of a chat completion", name, (*_SETTINGS, *_OWN, *_READ))
        elif value not in (_OFF[name], "auto"):
            raise DataError(f"`{name}` is not offered here, and would be ignored; leave it out")
    if options.get("num_return_sequences", 1) != 1 and given.get("stream"):
        raise DataError("`n` answers at once are not streamed; leave `stream` or `n` out")
    if options.get("top_p") == 1 and "temperature" not in options:
        del options["top_p"]  # clients write their defaults out
    if options.get("temperature") == 0:
        options.pop("top_p", None)
    options.setdefault("max_new_tokens", 256)
    constraint = _constraint(given.get("response_format"))
    if constraint is not None:
        options["constraint"] = constraint
    options["max_time"] = time_limit
    with _in_their_words(given):
        settings_of(**options)  # what is wrong is refused at once, and not when its turn comes
    return options


@contextmanager
def _in_their_words(given: Mapping[str, Any]) -> Iterator[None]:
    """Errors about a setting name it as the client did."""
    try:
        yield
    except GenerationError as error:
        text = str(error)
        for theirs, ours in _SETTINGS.items():
            if given.get(theirs) is not None:
                text = re.sub(rf"\b{ours}\b", theirs, text)
        raise GenerationError(text) from None


def _constraint(form: Any) -> Any:
    kind = form.get("type") if isinstance(form, Mapping) else form
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return json_schema()
    described = form.get("json_schema") if isinstance(form, Mapping) else None
    schema = described.get("schema") if isinstance(described, Mapping) else None
    if kind != "json_schema" or not isinstance(schema, Mapping):
        raise DataError("`response_format` is none of text, json_object, json_schema with json_schema.schema")
    return json_schema(schema)


async def _whole(head: dict[str, Any], pieces: AsyncIterator[AnswerPiece], answers: int) -> dict[str, Any]:
    texts, last = [""] * answers, None
    async with aclosing(pieces):  # type: ignore[type-var]
        async for piece in pieces:
            texts = [text + more for text, more in zip(texts, piece.text, strict=True)]
            last = piece
    assert last is not None
    choices = [
        {"index": row, "message": {"role": "assistant", "content": text}, "finish_reason": _finished(last, row)}
        for row, text in enumerate(texts)
    ]
    return {**head, "object": "chat.completion", "choices": choices, "usage": _usage(last)}


async def _streamed(
    head: dict[str, Any], first: AnswerPiece, pieces: AsyncIterator[AnswerPiece], with_usage: bool
) -> AsyncIterator[str]:
    def event(choices: list[Any], **more: Any) -> str:
        return f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', 'choices': choices, **more})}\n\n"

    def delta(content: dict[str, Any], finish: str | None = None) -> list[Any]:
        return [{"index": 0, "delta": content, "finish_reason": finish}]

    yield event(delta({"role": "assistant", "content": ""}))
    piece = first
    try:
        async with aclosing(pieces):  # type: ignore[type-var]
            while piece.reasons is None:
                yield event(delta({"content": piece.text[0]}))
                piece = await anext(pieces)
            yield event(delta({}, _finished(piece, 0)))
            if with_usage:
                yield event([], usage=_usage(piece))
    except Exception as error:  # the answer has begun: what is wrong is reported inside of it
        refusal = refusal_of(error)
        yield f"data: {json.dumps({'error': {'message': str(refusal), 'type': refusal.kind}})}\n\n"
    yield "data: [DONE]\n\n"


def _finished(piece: AnswerPiece, row: int) -> str:
    assert piece.reasons is not None
    reason = piece.reasons[row]
    if reason not in _FINISHED:
        raise Broken(f"the model broke off: {reason}")
    return _FINISHED[reason]


def _usage(piece: AnswerPiece) -> dict[str, int]:
    completion = sum(piece.tokens)
    return {"prompt_tokens": piece.prompt, "completion_tokens": completion, "total_tokens": piece.prompt + completion}
