"""What every request passes, whatever it asks: token, origin, readiness, counts, and a line in the log."""

from __future__ import annotations

import hmac
import time
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from vertebra import log
from vertebra.errors import VertebraError
from vertebra.serve.refusals import Busy, Foreign, Refusal, Unauthorized, refusal_of
from vertebra.serve.service import Service, record

OPEN = ("/", "/healthz", "/health", "/ready")
"""Without a token: they show nothing but that a server is here."""
ASKING = ("/act", "/v1/chat/completions", "/reset")
"""Refused while the model is not ready or the server drains."""


class Gate:
    """An ASGI application around another one."""

    def __init__(self, app: Any, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["service"] = self.service
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Any, receive: Any, send: Any) -> None:
        begun, status = time.monotonic(), 500
        service, path = self.service, scope["path"]

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if service.draining.is_set():
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        asks = path in ASKING
        try:
            self._require(scope, path)
            if asks:
                service.require_open()
                service.active += 1
            try:
                await self.app(scope, receive, noted)
            finally:
                service.active -= asks
        except Exception as error:  # a server answers and goes on, whatever failed
            if not isinstance(error, Refusal | VertebraError):
                log.logger.error("a request failed", exc_info=error)
            await refused(refusal_of(error))(scope, receive, noted)
        seconds = time.monotonic() - begun
        if asks:
            service.metrics.request(path, str(status), seconds)
            record("request", path=path, status=status, ms=round(1e3 * seconds, 2), client=client_of(scope))

    async def _socket(self, scope: Any, receive: Any, send: Any) -> None:
        service = self.service
        try:
            self._require(scope, "websocket")
            service.require_open()
            if service.sockets >= service.settings.connections:
                raise Busy(f"{service.sockets} websockets are open already")
        except Refusal as refusal:
            service.metrics.request("websocket", str(refusal.status), 0.0)
            await denied(scope, receive, send, refusal)
            return
        service.sockets += 1
        try:
            await self.app(scope, receive, send)
        finally:
            service.sockets -= 1

    def _require(self, scope: Any, path: str) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            raise Foreign("a page of another place asks; this server answers its own page and programs alone")
        token = self.service.settings.token
        if token is None or path in OPEN:
            return
        given = headers.get("authorization", "").partition(" ")[2].strip()
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise Unauthorized("no token, or another; send `Authorization: Bearer TOKEN`, or openpi's `Api-Key TOKEN`")


def refused(refusal: Refusal) -> JSONResponse:
    """The answer to a request that gets none."""
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    if isinstance(refusal, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    # a body that is not read stands in the way of the next request
    headers["Connection"] = "close"
    body = {"message": str(refusal), "type": refusal.kind, "code": refusal.status}
    return JSONResponse({"error": body}, status_code=refusal.status, headers=headers)


async def denied(scope: Any, receive: Any, send: Any, refusal: Refusal) -> None:
    """A websocket that is not opened: an answer in HTTP where the server can, as ours does."""
    await receive()
    if "websocket.http.response" in scope.get("extensions", {}):
        await refused(refusal)(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": refusal.close, "reason": refusal.kind})


def client_of(scope: Any) -> str:
    """Who asks, for the log."""
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""
