"""`Application`: a server without a port, for whoever runs ASGI applications: Ray Serve, uvicorn's workers, hypercorn.

    app = Application("runs/reach")        # uvicorn module:app

Nothing is loaded until the application is started, by its lifespan, or by the first request where nobody starts it; so it can
be sent to the process that runs it. At the end of its lifespan it drains, as a `Server` does on SIGTERM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from vertebra.serve.server import require_parts
from vertebra.serve.settings import ServeSettings


class Application:
    """Serves what `made` makes: a `Policy` or a `Model`."""

    def __init__(
        self, made: Callable[[], Any], settings: ServeSettings | None = None, *, name: str | None = None
    ) -> None:
        """`made`: called in the process that serves; `name`: the name of the model that clients are given."""
        self.made, self.settings, self.name = made, settings or ServeSettings(), name
        self._inner: Any = None
        self._service: Any = None
        self._starting: asyncio.Lock | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_inner": None, "_service": None, "_starting": None}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        await self.start()
        await self._inner(scope, receive, send)

    async def start(self) -> None:
        """Load and warm up, once."""
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            if self._inner is None:
                require_parts()
                from vertebra.serve.app import application
                from vertebra.serve.service import Service

                service = Service(await asyncio.to_thread(self.made), self.settings, self.name)
                await service.start()
                self._service, self._inner = service, application(service)

    async def stop(self) -> None:
        """Answer what was accepted, and end."""
        if self._service is not None:
            await self._service.drain()
            self._service.stop()

    async def _live(self, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "lifespan.startup":
            try:
                await self.start()
            except Exception as error:  # whoever runs it is informed, as ASGI has it
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                raise
            await send({"type": "lifespan.startup.complete"})
        assert message["type"] == "lifespan.shutdown"
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})
