"""The server's interface as OpenAPI 3.1: made from one table, so that the page, the file and the routes agree."""

from __future__ import annotations

from typing import Any

from vertebra import __version__
from vertebra.serve.service import Service

_TEXT = {"type": "string"}
_ND = {
    "type": "object",
    "description": "json_numpy's form of an array: base64 of its bytes in C order",
    "required": ["__numpy__", "dtype", "shape"],
    "properties": {"__numpy__": _TEXT, "dtype": _TEXT, "shape": {"type": "array", "items": {"type": "integer"}}},
}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
ALWAYS = {
    "/healthz": ("get", "The process is there."),
    "/health": ("get", "The same as /ready."),
    "/ready": ("get", "Whether requests are taken: 200, or 503 while warming up and draining."),
    "/metrics": ("get", "Counts in Prometheus' text format."),
    "/info": ("get", "What is served: a page for browsers, JSON for programs."),
    "/openapi.json": ("get", "This description."),
    "/": ("get", "The live page. The same address takes websockets: openpi's, starVLA's and vla-eval's messages."),
    "/live": ("get", "What the live page shows."),
}
ACTING = {
    "/act": ("post", "The next actions for an observation, in the dialect of the request."),
    "/reset": ("post", "A session's episode is over: forget it."),
}
SPEAKING = {
    "/v1/chat/completions": ("post", "An answer to a conversation; OpenAI's protocol."),
    "/v1/models": ("get", "The model that is served."),
}


def described(service: Service) -> dict[str, Any]:
    """The whole description."""
    own = ACTING if service.policy is not None else SPEAKING
    paths = {path: {method: _operation(path, words, service)} for path, (method, words) in (own | ALWAYS).items()}
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": f"Vertebra: {service.metadata()['model']}",
            "version": __version__,
            "description": "Errors are {error: {message, type, code}}; 503 comes with Retry-After.",
        },
        "paths": paths,
        "components": {"schemas": {"ND": _ND}},
    }
    if service.settings.token is not None:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
    return made


def _operation(path: str, words: str, service: Service) -> dict[str, Any]:
    made: dict[str, Any] = {"summary": words, "responses": {"200": {"description": "OK"}}}
    if path in ("/act", "/reset", "/v1/chat/completions"):
        for code, why in (("400", "what is wrong with the request"), ("413", "too large"), ("503", "busy; come back"),
                          ("504", "the time limit")):  # fmt: skip
            made["responses"][code] = {"description": why}
    body = _bodies(service).get(path)
    if body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return made


def _bodies(service: Service) -> dict[str, Any]:
    chat = {
        "type": "object",
        "required": ["messages"],
        "properties": {"messages": {"type": "array", "items": {"type": "object"}}, "stream": {"type": "boolean"}},
    }
    if service.policy is None:
        return {"/v1/chat/completions": chat}
    record = service.policy.record
    image = {
        "oneOf": [{"$ref": "#/components/schemas/ND"}, {"type": "string", "description": "base64 of a PNG or JPEG"}]
    }
    properties: dict[str, Any] = {
        "images": {"type": "object", "properties": dict.fromkeys(record.cameras, image)},
        "instruction": _TEXT,
        "unnorm_key": {"type": "string", "enum": service.policy.keys},
        "session": _TEXT,
    }
    if record.proprio is not None:
        properties["proprio"] = {**_NUMBERS, "minItems": record.proprio, "maxItems": record.proprio}
    return {
        "/act": {"type": "object", "required": ["images", "instruction"], "properties": properties},
        "/reset": {"type": "object", "required": ["session"], "properties": {"session": _TEXT}},
    }
