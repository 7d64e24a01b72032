"""GR00T's protocol: msgpack over ZMQ, on a port of its own, for the clients of its `PolicyServer`.

    {"endpoint": "get_action", "data": {"observation": {video, state, language}, "options": …}, "api_token"?}
        video     {camera: u8 [B, T, H, W, C]}, the last of T is now    ──►  [{"action": f32 [B, H, D]}, {}]
        state     {part: f32 [B, T, D]}, joined in the order sent
        language  {name: [[text]]}
    {"endpoint": "ping" | "reset" | "get_modality_config"}              ──►  a mapping; {"error": words} at a fault

Whoever is connected is a robot that is remembered, and each of its B rows another one. `kill` is refused: whoever may ask may
not end the server. A task beside the web server's; requests of several clients share passes with all others.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vertebra import log
from vertebra.errors import ConfigError, DataError, MissingPartError, UnknownNameError, VertebraError
from vertebra.serve.observing import asked_of, groots_rows
from vertebra.serve.refusals import Refusal, Unauthorized, refusal_of
from vertebra.serve.service import Service, record
from vertebra.wire.arrays import to_nd, to_npy
from vertebra.wire.messages import pack, unpack

ENDPOINTS = ("get_action", "ping", "reset", "get_modality_config")

OLDER = b"__ndarray_class__"
"""In a request whose arrays are .npy files; newer clients send msgpack-numpy's form, and each is answered in its own."""


class Groot:
    """Listens on one port."""

    def __init__(self, service: Service) -> None:
        zmq = _zmq()
        if service.policy is None:
            raise ConfigError("GR00T's protocol is about policies, and this is a language model; leave --groot out")
        self.service, settings = service, service.settings
        self._socket = zmq.asyncio.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, settings.body)
        self._socket.setsockopt(zmq.LINGER, 1000)  # answers that are on their way
        self._socket.setsockopt(zmq.IPV6, ":" in settings.host)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            self._socket.bind(f"tcp://{host}:{settings.groot}")
        except zmq.ZMQError as error:
            self._socket.close()
            raise ConfigError(
                f"{host}:{settings.groot} cannot serve GR00T's clients ({error}); take another port"
            ) from None
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
        self._asking: set[asyncio.Task[None]] = set()
        self._listening = asyncio.ensure_future(self._listen())

    async def _listen(self) -> None:
        while True:
            frames = await self._socket.recv_multipart()
            if len(frames) == 3:  # who, nothing, what: as a REQ socket sends it
                task = asyncio.ensure_future(self._one(frames[0], frames[2]))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    def close(self) -> None:
        self._listening.cancel()
        self._socket.close()

    async def _one(self, who: bytes, data: bytes) -> None:
        service, begun, outcome = self.service, time.monotonic(), "ok"
        service.active += 1
        try:
            service.require_open()
            form = to_npy if OLDER in data else to_nd
            given = unpack(data, service.settings.bounds)
            answer: Any = await self._answered(f"groot {who.hex()}", given, form)
        except Exception as error:  # a server answers and goes on, whatever failed
            if not isinstance(error, Refusal | VertebraError):
                log.logger.error("a request failed", exc_info=error)
            outcome, answer = refusal_of(error).kind, {"error": str(refusal_of(error))}
        try:
            await self._socket.send_multipart([who, b"", pack(answer)])
        finally:
            service.active -= 1
            seconds = time.monotonic() - begun
            service.metrics.request("groot", outcome, seconds)
            record("groot", status=outcome, ms=round(1e3 * seconds, 2), client=who.hex())

    async def _answered(self, robot: str, given: Any, form: Callable[[np.ndarray], Any]) -> Any:
        if not isinstance(given, Mapping):
            raise DataError("the request is no mapping; expected {endpoint, data}")
        token = self.service.settings.token
        if token is not None and not hmac.compare_digest(str(given.get("api_token")).encode(), token.encode()):
            raise Unauthorized("no token, or another; give it as `api_token`")
        endpoint, data = given.get("endpoint", "get_action"), given.get("data")
        if endpoint == "ping":
            return {"status": "ok", "message": "Server is running"}
        if endpoint == "get_modality_config":
            return self._modalities()
        if endpoint == "reset":
            assert self.service.scheduler is not None
            self.service.scheduler.forget_rows(robot)
            return {}
        if endpoint != "get_action":
            raise UnknownNameError("endpoint", str(endpoint), ENDPOINTS)
        seen = data.get("observation") if isinstance(data, Mapping) else None
        chunks = await asyncio.gather(*(self._act(row, f"{robot}/{at}") for at, row in enumerate(groots_rows(seen))))
        return [{"action": form(np.stack(chunks).astype(np.float32))}, {}]

    async def _act(self, row: dict[str, Any], robot: str) -> np.ndarray:
        policy, settings = self.service.policy, self.service.settings
        assert policy is not None
        if not policy.record.history:
            row.pop("history", None)
        made = await self.service.act(
            asked_of(row, policy.record, rename=settings.rename, bounds=settings.bounds), robot
        )
        return np.asarray(made.chunk)

    def _modalities(self) -> dict[str, Any]:
        assert self.service.policy is not None
        known = self.service.policy.record
        shown = {"video": (list(known.cameras), range(-known.history, 1)), "action": (["action"], range(known.chunk))}
        shown |= {name: ([name], range(1)) for name in ("language", *(["state"] if known.proprio is not None else []))}
        return {
            name: {"__ModalityConfig_class__": True, "as_json": {"delta_indices": list(steps), "modality_keys": keys}}
            for name, (keys, steps) in shown.items()
        }


def _zmq() -> Any:
    try:
        import zmq
        import zmq.asyncio
    except ImportError as error:
        raise MissingPartError("GR00T's protocol", "pyzmq", "groot") from error
    return zmq
