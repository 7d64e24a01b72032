"""The ASGI application: routes to what answers them, and the gate around all."""

from __future__ import annotations

from typing import Any

from starlette.routing import Route, Router, WebSocketRoute

from vertebra.errors import did_you_mean, shortened
from vertebra.serve import acting, chat, pages
from vertebra.serve.gate import Gate, denied
from vertebra.serve.refusals import Nothing
from vertebra.serve.service import Service
from vertebra.serve.sockets import socket


def application(service: Service) -> Any:
    """Everything that a server answers."""

    routes: list[Any] = [
        Route("/", pages.page),
        Route("/healthz", pages.healthz),
        Route("/health", pages.ready),
        Route("/ready", pages.ready),
        Route("/metrics", pages.metrics),
        Route("/info", pages.info),
        Route("/openapi.json", pages.openapi),
        Route("/live", pages.live),
        Route("/act", acting.act, methods=["POST"]),
        Route("/reset", acting.reset, methods=["POST"]),
        Route("/v1/chat/completions", chat.completions, methods=["POST"]),
        Route("/v1/models", chat.models),
        WebSocketRoute("/", socket),
    ]

    async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
        path, known = scope["path"], sorted({route.path for route in routes})
        nothing = Nothing(f"nothing is at `{shortened(path)}`.{did_you_mean(path, known)} Here are {', '.join(known)}")
        if scope["type"] == "http":
            raise nothing
        await denied(scope, receive, send, nothing)

    return Gate(Router(routes, default=elsewhere), service)
