"""Tiny policies behind a server, and how they are asked."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from tests.policies.models import STATISTICS, policy_model
from vertebra.policies import Policy, PolicySettings
from vertebra.wire import to_json

TASK = "Pick up the cup"


def policy(settings: dict[str, Any] | None = None, **changes: Any) -> Policy:
    model = policy_model(**{"statistics": {"bridge": STATISTICS["bridge"]}, **changes})
    return Policy(model, settings=PolicySettings(**(settings or {})))


def asked(url: str, body: Any = None, *, headers: dict[str, str] | None = None) -> tuple[int, Any, Any]:
    """(status, value, headers) of a request; `body`: bytes, or a value as JSON."""
    data = body if isinstance(body, bytes | None) else to_json(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, reply, found = answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            status, reply, found = error.code, error.read(), error.headers
    return status, json.loads(reply) if "json" in found.get("content-type", "") else reply.decode(), found
