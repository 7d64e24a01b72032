"""What a server shows of itself: whether it is there and ready, its counts, its interface, and the live page."""

from __future__ import annotations

import io
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from vertebra.serve.interface import described
from vertebra.serve.service import Service
from vertebra.webpage import beside, data_url, escaped, webpage

_THUMB = 192


async def healthz(request: Request) -> Response:
    """It is there, as openpi's clients ask."""
    return PlainTextResponse("OK\n")


async def ready(request: Request) -> Response:
    """Whether requests are taken now; vla-eval asks it as `/health`."""
    service = _service(request)
    if service.draining.is_set() or not service.ready:
        what = "draining" if service.draining.is_set() else "warming up"
        return JSONResponse({"status": what}, status_code=503, headers={"Retry-After": "1"})
    return JSONResponse({"status": "ok", **_outdated(service)})


async def metrics(request: Request) -> Response:
    """Counts in Prometheus' text format."""
    service = _service(request)
    counters = {} if service.policy is None else dict(service.policy.counts)
    gauges = {
        "ready": ("Whether requests are taken.", float(service.ready and not service.draining.is_set())),
        "queue": ("Requests that wait.", float(waiting(service))),
        "active": ("Requests that are accepted and not answered.", float(service.active)),
        "websockets": ("Open websockets.", float(service.sockets)),
        "sessions": ("Robots that are remembered.", float(service.scheduler.sessions if service.scheduler else 0)),
        "resident_bytes": ("Memory of the process.", float(resident())),
    }
    return PlainTextResponse(service.metrics.text(gauges, counters), media_type="text/plain; version=0.0.4")


async def info(request: Request) -> Response:
    """What is served, and how it is asked: a page for a browser, JSON for programs."""
    service = _service(request)
    known, spec = service.metadata(), described(service)
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({**known, **_outdated(service), "paths": sorted(spec["paths"])})
    return HTMLResponse(_interface_page({**known, **_outdated(service)}, spec), headers=_SAFE)


async def openapi(request: Request) -> Response:
    """The interface as OpenAPI 3.1."""
    return JSONResponse(described(_service(request)))


async def page(request: Request) -> Response:
    """The live page; what it shows comes from `/live`."""
    text = beside("vertebra.serve", "page.html")
    return HTMLResponse(text, headers=_SAFE)


async def live(request: Request) -> Response:
    """The last images, actions, latencies, and the queue."""
    service = _service(request)
    counts = service.metrics
    images = {name: shown for name, image in dict(counts.seen).items() if (shown := thumbnail(image)) is not None}
    state = "draining" if service.draining.is_set() else "ready" if service.ready else "warming up"
    total = sum(count for (route, _), count in list(counts.requests.items()) if route != "warm")
    return JSONResponse({
        "about": service.metadata(), "state": state, "queue": waiting(service), "active": service.active,
        "websockets": service.sockets, "requests": total, "images": images, "recent": list(counts.recent),
    })  # fmt: skip


_SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def waiting(service: Service) -> int:
    """Requests in the queue."""
    queue = service.scheduler or service.speaker
    return queue.waiting if queue is not None else 0


def thumbnail(image: Any) -> str | None:
    """A small picture as a data URL; None for what cannot be drawn."""
    try:
        opened = Image.fromarray(image) if isinstance(image, np.ndarray) else Image.open(io.BytesIO(image))
        opened = opened.convert("RGB")
        opened.thumbnail((_THUMB, _THUMB))
        kept = io.BytesIO()
        opened.save(kept, "PNG")
    except (OSError, ValueError, TypeError):
        return None
    return data_url(kept.getvalue())


def resident() -> int:
    """Bytes of memory that the process holds now (elsewhere than on Linux: at most held)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return held if sys.platform == "darwin" else held * 1024


def _interface_page(known: dict[str, Any], spec: dict[str, Any]) -> str:
    facts = "".join(f"<tr><th>{escaped(name)}</th><td>{escaped(str(value))}</td></tr>" for name, value in known.items())
    rows = [
        f"<tr><th>{method.upper()}</th><td><code>{escaped(path)}</code></td><td>{escaped(what['summary'])}</td>"
        f"<td>{escaped(', '.join(what['responses']))}</td></tr>"
        for path, methods in spec["paths"].items()
        for method, what in methods.items()
    ]
    body = (
        f"<h1>{escaped(known['model'])}</h1><table>{facts}</table><h2>Interface</h2><table>{''.join(rows)}</table>"
        f"<p>{escaped(spec['info']['description'])}</p>"
        '<p><a href="openapi.json">openapi.json</a> · <a href="./">live page</a></p>'
    )
    return webpage("Vertebra: interface", body)


def _outdated(service: Service) -> dict[str, str]:
    """Whether a restart would serve something else."""
    if not service.outdated:
        return {}
    return {"folder": "changed since it was loaded; the weights that were loaded are served until a restart"}


def _service(request: Request) -> Service:
    service: Service = request.scope["service"]
    return service
