"""`POST /act` and `POST /reset`: one observation a request, answered in the spelling in which it came.

    {"image": ND, "instruction": …}          OpenVLA: the first action, ND of float64
    {"full_image": ND, "state": …, …}        OFT: the chunk, a list of ND
    {"encoded": "<one of these>"}            the same, and the answer a JSON text inside of JSON
    {"image0": …, "language_instruction": …} X-VLA: {"action": [[…]]}
    anything else                            ours: {"actions": [[…]], "key": …}, in JSON or msgpack

ND is json_numpy's form of an array.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from vertebra.errors import DataError
from vertebra.policies.decision import Decision
from vertebra.serve.observing import asked_of
from vertebra.serve.refusals import Refusal, TooLarge, TooLate
from vertebra.serve.service import Service
from vertebra.serve.settings import ServeSettings
from vertebra.wire.messages import pack, unpack
from vertebra.wire.text import from_json, to_json

MSGPACK = "application/msgpack"


async def act(request: Request) -> Response:
    """One observation in, one chunk out."""
    service: Service = request.scope["service"]
    if service.policy is None:
        raise Refusal("this server has a language model, which answers at /v1/chat/completions, and no policy")
    given, double = await _read(request, service.settings)
    asked = asked_of(given, service.policy.record, rename=service.settings.rename, bounds=service.settings.bounds)
    made = await service.act(asked, None)
    answer = reply_of(given, made)
    if _packed(request):
        return Response(pack(answer), media_type=MSGPACK)
    text = to_json(answer)
    return Response(to_json(text) if double else text, media_type="application/json")


async def reset(request: Request) -> Response:
    """A session's episode is over."""
    service: Service = request.scope["service"]
    given, _ = await _read(request, service.settings)
    session = given.get("session") if isinstance(given, Mapping) else None
    if not isinstance(session, str) or service.scheduler is None:
        raise DataError('a reset is {"session": "…"}, of a policy')
    service.scheduler.forget(session)
    return Response(pack({"reset": session}) if _packed(request) else to_json({"reset": session}),
                    media_type=MSGPACK if _packed(request) else "application/json")  # fmt: skip


def reply_of(given: Mapping[str, Any], made: Decision) -> Any:
    """An answer in the dialect of the request."""
    chunk = np.asarray(made.chunk, np.float64)
    if "full_image" in given:
        return list(chunk)
    if "image" in given and "images" not in given and not isinstance(given["image"], list):
        return chunk[0]
    if "image0" in given:
        return {"action": chunk.tolist()}
    return {"actions": chunk.tolist(), "key": made.key, "outside": made.outside}


async def _read(request: Request, settings: ServeSettings) -> tuple[Any, bool]:
    """(the value of a body, whether it was encoded twice)."""
    body = await body_of(request, settings)
    if _packed(request):
        return unpack(body, settings.bounds), False
    given = from_json(body, settings.bounds)
    if isinstance(given, Mapping) and isinstance(given.get("encoded"), str):
        return from_json(given["encoded"], settings.bounds), True
    return given, False


def _packed(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip() in (MSGPACK, "application/x-msgpack")


async def body_of(request: Request, settings: ServeSettings) -> bytes:
    """The body, refused as soon as it is too large or too slow."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > settings.body:
        raise TooLarge(f"the body has {int(length):,} bytes; expected at most {settings.body:,}")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.body_time):
            async for part in request.stream():
                size += len(part)
                if size > settings.body:
                    raise TooLarge(f"the body has more than {settings.body:,} bytes")
                parts.append(part)
    except TimeoutError:
        raise TooLate(f"the body did not come within {settings.body_time:g} s") from None
    except ClientDisconnect:
        raise Refusal("the client went away before its request was here") from None
    return b"".join(parts)
