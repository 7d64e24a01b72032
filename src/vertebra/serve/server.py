"""A server from its port to its end: bind, warm up, listen, and on SIGTERM answer what was accepted and go.

Server(policy, ServeSettings(port=0)).run()          until a signal
with Server(policy, ServeSettings(port=0)) as one:   in a thread, for a program or a test: one.url
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from types import FrameType
from typing import Any

from vertebra import log
from vertebra.errors import ConfigError, MissingPartError
from vertebra.serve.settings import ServeSettings

_BACKLOG = 2048
"""Connections that wait to be taken."""


class Server:
    """Serves a `Policy` or a `Model`."""

    def __init__(
        self,
        served: Any,
        settings: ServeSettings | None = None,
        *,
        name: str | None = None,
        bound: socket.socket | None = None,
        folder: Any = None,
    ) -> None:
        """`bound`: a socket from `bind`, where the port was taken before the model was loaded; `folder`: where the model was
        loaded from, a `Folder` made before that, whose later changes `/info` and `/ready` then show."""
        require_parts()
        from vertebra.serve.app import application
        from vertebra.serve.service import Service

        self.settings = settings or ServeSettings()
        self.service = Service(served, self.settings, name, folder)
        self.application = application(self.service)
        self._socket = bound or bind(self.settings)
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None
        self._begun = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Any = None
        self._groot: Any = None

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def groot_port(self) -> int | None:
        """Where GR00T's clients are answered; None: nowhere."""
        return None if self._groot is None else int(self._groot.port)

    @property
    def url(self) -> str:
        host = self.settings.host
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{host}:{self.port}"

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; a second one ends at once."""
        asyncio.run(self._serve(signals=True))
        if self._failed is not None:
            raise self._failed

    def __enter__(self) -> Server:
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(signals=False)), name="server", daemon=True
        )
        self._thread.start()
        self._begun.wait()
        if self._failed is not None:
            self._thread.join()
            raise self._failed
        return self

    def __exit__(self, *what: object) -> None:
        self.end()

    def end(self) -> None:
        """Drain and end a server that runs in a thread."""
        assert self._thread is not None
        assert self._loop is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._leave)
        self._thread.join()

    async def _serve(self, *, signals: bool) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self._socket.listen(_BACKLOG)
        except OSError as error:  # two that bound at once, before either listened
            self._failed = _unbound(self.settings, error)
            self._socket.close()
            self._begun.set()
            return
        self._server = _uvicorn(self.application, self.settings, self._leave if signals else None)
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))
        try:
            while not self._server.started and not serving.done():
                await asyncio.sleep(0.002)
            if self.settings.groot is not None:
                from vertebra.serve.groot import Groot

                self._groot = Groot(self.service)
            await self.service.start()
        except BaseException as error:
            self._failed = error
            self.service.draining.set()
            self._server.should_exit = True
        finally:
            self._begun.set()
        await serving
        if self._groot is not None:
            self._groot.close()
        self.service.stop()

    def _leave(self) -> None:
        """Answer what was accepted, then end; called twice: end."""
        assert self._loop is not None
        if self.service.draining.is_set():
            self._server.force_exit = self._server.should_exit = True
            return
        self._leaving = self._loop.create_task(self._drained())

    async def _drained(self) -> None:
        await self.service.drain()
        self._server.should_exit = True


def bind(settings: ServeSettings) -> socket.socket:
    """The port, taken before anything else is done; nobody can connect yet."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # of this protocol by name: asyncio sends small packets at once on such sockets alone, and others wait for 40 ms
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((settings.host, settings.port))
    except (OSError, TypeError) as error:  # the latter for what cannot be a name
        made.close()
        raise _unbound(settings, error) from None
    if settings.token is None and settings.host not in ("127.0.0.1", "localhost", "::1"):
        log.warn(f"everybody who reaches {settings.host} can ask this server; give a token (--token)")
    return made


def _unbound(settings: ServeSettings, error: OSError | TypeError) -> ConfigError:
    """Why an address cannot be served on, and what to do about it."""
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        what = "another server has the port: take another one (--port), or 0 for any that is free"
    elif number in (errno.EACCES, errno.EPERM):
        what = "ports below 1024 belong to the administrator: take another one (--port)"
    else:
        what = "expected an address of this machine (--host): 127.0.0.1 for this machine alone, 0.0.0.0 for all its networks"
    reason = getattr(error, "strerror", None) or "no name of a host"
    return ConfigError(f"{settings.host:.80}:{settings.port} cannot be served on ({reason}); {what}")


def require_parts() -> None:
    """What the extra `serve` installs."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as error:
        raise MissingPartError("a server", str(error.name), "serve") from error


def _uvicorn(application: Any, settings: ServeSettings, leave: Any) -> Any:
    import uvicorn

    class Uvicorn(uvicorn.Server):
        """Its way with signals is to drop what is being answered; ours drains first."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            leave()

    config = uvicorn.Config(
        application, lifespan="off", loop="asyncio", log_config=None, log_level="critical", access_log=False,
        server_header=False, proxy_headers=False, ws="websockets-sansio", ws_max_size=settings.body,
        ws_ping_interval=None, ws_per_message_deflate=False, timeout_keep_alive=30, timeout_graceful_shutdown=5,
        backlog=_BACKLOG,
    )  # fmt: skip
    return Uvicorn(config)
