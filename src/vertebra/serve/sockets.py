"""The websocket: openpi's protocol, starVLA's and vla-eval's on one address, told apart by what a client sends.

    open ──► metadata (openpi's clients wait for it; it reads as vla-eval's `hello` too)
    {"observation/image": …, "prompt": …}             openpi     {"actions": nd, "policy_timing": …, "server_timing": …}
    {"type": "infer" | "ping", "payload": …}          starVLA    {"status": "ok", "data": {"actions": [1, T, D]}, …}
    {"type": "hello" | "observation" | "episode_…"}   vla-eval   {"type": "action", "payload": {"actions": one action}, …}
    {"type": "reset"}                                 ours       {"type": "reset"}

Whoever is connected is a robot that is remembered; `?session=` keeps it beyond this connection. A request that cannot be
answered is answered with its fault: openpi's as text, then 1011; the others' as a message, and they may go on.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from vertebra import log
from vertebra.errors import DataError, VertebraError
from vertebra.serve.gate import client_of
from vertebra.serve.observing import asked_of
from vertebra.serve.refusals import Refusal, refusal_of
from vertebra.serve.service import Service, record
from vertebra.wire.messages import pack, unpack

EVAL = ("hello", "observation", "episode_start", "episode_end", "error")
_RESTART, _NORMAL = 1012, 1000


async def socket(connection: WebSocket) -> None:
    """One client, from its first message to its last."""
    service: Service = connection.scope["service"]
    if service.policy is None:
        await connection.close(1003, "a language model answers over HTTP")
        return
    await connection.accept()
    talk = Talk(service, connection)
    try:
        await talk.go()
    except WebSocketDisconnect:
        pass
    finally:
        talk.ending.cancel()
        if not talk.named and service.scheduler is not None:
            service.scheduler.forget(talk.robot)


class Talk:
    """What is known of one connection."""

    def __init__(self, service: Service, connection: WebSocket) -> None:
        self.service, self.connection = service, connection
        session = connection.query_params.get("session")
        self.named = session is not None
        self.robot = session or f"websocket {uuid.uuid4().hex}"
        self.client = client_of(connection.scope)
        self.chunk: deque[np.ndarray] = deque()
        """vla-eval takes one action a message: the rest of the chunk."""
        self.before: float | None = None
        self.ending = asyncio.ensure_future(service.draining.wait())

    async def go(self) -> None:
        about = {**self.service.metadata(), "session": self.robot}
        await self._send({**about, **_message("hello", self._hello(), 0)})
        while (data := await self._next()) is not None:
            self.service.active += 1
            begun, outcome = time.monotonic(), "ok"
            try:
                await self._answer(data, begun)
            except (Refusal, VertebraError) as error:
                outcome = refusal_of(error).kind
                await self._refuse(refusal_of(error), data)
            except WebSocketDisconnect:
                outcome = "disconnected"
                raise
            except Exception as error:  # a server answers and goes on, whatever failed
                outcome = "internal error"
                log.logger.error("a message failed", exc_info=error)
                await self._refuse(refusal_of(error), data)
            finally:
                seconds = time.monotonic() - begun
                self.service.active -= 1
                self.service.metrics.request("websocket", outcome, seconds)
                record("message", status=outcome, ms=round(1e3 * seconds, 2), client=self.client)
            self.before = seconds
            if self.connection.client_state is not WebSocketState.CONNECTED:
                return

    async def _next(self) -> bytes | None:
        """The next message; None: the server ends, or the client is silent for too long."""
        coming = asyncio.ensure_future(self.connection.receive())
        try:
            idle = self.service.settings.idle
            await asyncio.wait((coming, self.ending), timeout=idle, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not coming.done():
                coming.cancel()
        if not coming.done() or coming.cancelled():
            ends = self.service.draining.is_set()
            await self.connection.close(
                _RESTART if ends else _NORMAL, "the server ends" if ends else "silent for too long"
            )
            return None
        message = coming.result()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or _NORMAL)
        data = message.get("bytes")
        return data if data is not None else (message.get("text") or "").encode()

    async def _answer(self, data: bytes, begun: float) -> None:
        given = unpack(data, self.service.settings.bounds)
        kind = given.get("type") if isinstance(given, Mapping) else None
        if kind in EVAL:
            await self._eval(kind, given)
        elif kind == "reset":
            self._reset()
            await self._send({"type": "reset"})
        elif kind in ("infer", "ping"):
            await self._starvla(kind, given)
        else:
            actions, seconds = await self._act(given)
            timing = {"infer_ms": 1e3 * seconds}
            before = {} if self.before is None else {"prev_total_ms": 1e3 * self.before}
            await self._send({"actions": actions, "policy_timing": timing, "server_timing": {**timing, **before}})

    async def _act(self, given: Any) -> tuple[np.ndarray, float]:
        begun = time.monotonic()
        settings, policy = self.service.settings, self.service.policy
        assert policy is not None
        asked = asked_of(given, policy.record, rename=settings.rename, bounds=settings.bounds)
        made = await self.service.act(asked, self.robot)
        return np.asarray(made.chunk), time.monotonic() - begun

    def _reset(self) -> None:
        assert self.service.scheduler is not None
        self.service.scheduler.forget(self.robot)
        self.chunk.clear()

    async def _eval(self, kind: str, given: Mapping[str, Any]) -> None:
        """vla-eval's. Its `hello` was answered when the connection opened."""
        if kind in ("episode_start", "episode_end"):
            self._reset()
        if kind != "observation":
            return
        if not self.chunk:
            actions, _ = await self._act(given.get("payload"))
            self.chunk.extend(actions)
        seq = given.get("seq", 0)
        await self._send(_message("action", {"actions": self.chunk.popleft()}, seq), keys=str)

    async def _starvla(self, kind: str, given: Mapping[str, Any]) -> None:
        number = given.get("request_id")
        if kind == "ping":
            await self._send({"status": "ok", "ok": True, "type": "pong", "request_id": number})
            return
        payload = given.get("payload")
        payload = payload if isinstance(payload, Mapping) else dict[str, Any]()
        examples = payload.get("examples")
        if not isinstance(examples, list) or not examples or not all(isinstance(one, Mapping) for one in examples):
            raise DataError("the payload of `infer` has no `examples`; expected [{image, lang, state}, …]")
        key = payload.get("unnorm_key")
        asked = [{"unnorm_key": key, **one} for one in examples]
        if len(asked) > 1:  # several at once are several robots
            asked = [{"session": f"{self.robot}/{at}", **one} for at, one in enumerate(asked)]
        made = await asyncio.gather(*(self._act(one) for one in asked))
        actions = np.stack([chunk for chunk, _ in made])
        head = {"status": "ok", "ok": True, "type": "inference_result", "request_id": number}
        await self._send({**head, "data": {"actions": actions}})

    async def _refuse(self, refusal: Refusal, data: bytes) -> None:
        """The fault, in the client's protocol."""
        try:
            read = unpack(data, self.service.settings.bounds)
        except VertebraError:
            read = None
        given: Mapping[str, Any] = read if isinstance(read, Mapping) else {}
        kind = given.get("type")
        if kind in EVAL:
            await self._send(_message("error", {"error": str(refusal)}, given.get("seq", 0)), keys=str)
        elif kind in ("infer", "ping"):
            reply = {"status": "error", "ok": False, "error": {"message": str(refusal)}}
            await self._send({**reply, "request_id": given.get("request_id")})
        else:
            await self.connection.send_text(f"{refusal.kind}: {refusal}")
            await self.connection.close(refusal.close, refusal.kind)

    async def _send(self, value: Any, keys: Any = bytes) -> None:
        await self.connection.send_bytes(pack(value, keys=keys))

    def _hello(self) -> dict[str, Any]:
        return {"harness_version": "", "protocol_version": 1, "model_server": "vertebra", "capabilities": {}}


def _message(kind: str, payload: Any, seq: Any) -> dict[str, Any]:
    """vla-eval's envelope."""
    return {"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()}
