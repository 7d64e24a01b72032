"""The clients behind `connect`: one for each way to reach a policy, with one face."""

from __future__ import annotations

import http.client
import ssl
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from vertebra.client.observed import observed, oft, openpi, openvla
from vertebra.client.websocket import Closed, Denied, WebSocket
from vertebra.errors import ConfigError, DataError, NetworkError
from vertebra.wire.messages import pack, unpack
from vertebra.wire.text import from_json, to_json

LATER = (1001, 1006, 1012, 1013)
"""Codes of a close behind which another try is worth it."""


class Client(ABC):
    """Whoever answers observations with actions."""

    metadata: Mapping[str, Any] = {}
    """What the server says of its model."""

    @abstractmethod
    def act(self, observation: Any, instruction: str, unnorm_key: str | None = None) -> np.ndarray:
        """[k, dims] the next actions, the first of them first. `observation`: as `Policy.act` takes it."""

    @abstractmethod
    def reset(self) -> None:
        """A new episode begins."""

    def close(self) -> None:  # noqa: B027
        """Let go of the connection, where there is one."""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *what: object) -> None:
        self.close()


class Local(Client):
    """A policy in this process."""

    def __init__(self, policy: Any, session: str | None = None) -> None:
        self.policy, self.session = policy, session or uuid.uuid4().hex
        self.metadata = {"keys": policy.keys, "cameras": list(policy.record.cameras), "dims": policy.record.dims}

    def act(self, observation: Any, instruction: str, unnorm_key: str | None = None) -> np.ndarray:
        made: np.ndarray = self.policy.act(observation, instruction, unnorm_key, robot=self.session)
        return made

    def reset(self) -> None:
        self.policy.reset(self.session)


class Remote(Client):
    """A server. What is refused for now, or lost on the way, is asked again for `patience` seconds."""

    def __init__(self, url: str, *, token: str | None, timeout: float, patience: float) -> None:
        self.url, self.timeout, self.patience = url, timeout, patience
        self.headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def patiently(self, ask: Callable[[], Any]) -> Any:
        until, pause = time.monotonic() + self.patience, 0.05
        while True:
            try:
                return ask()
            except NetworkError as error:
                self.close()
                if not _passes(error) or time.monotonic() + pause > until:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


def _passes(error: NetworkError) -> bool:
    """Whether the same request may be answered a little later."""
    if isinstance(error, Closed):
        return error.code in LATER
    return not isinstance(error, Denied) or error.status == 503


class OverWebSocket(Remote):
    """openpi's protocol: ours, openpi's servers, and what is made like them."""

    def __init__(
        self, url: str, *, session: str | None, names: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        super().__init__(url, **options)
        self.session, self.names = session or uuid.uuid4().hex, names
        self._socket: WebSocket | None = None
        self.patiently(self._connected)

    def _connected(self) -> WebSocket:
        if self._socket is None:
            mark = "&" if "?" in self.url else "?"
            address = f"{self.url}{mark}session={quote(self.session)}"
            made = WebSocket(address, headers=self.headers, timeout=self.timeout)
            try:
                first = made.receive()
                self.metadata = unpack(first) if isinstance(first, bytes) else {}
            except BaseException:
                made.close()
                raise
            self._socket = made
        return self._socket

    def _asked(self, data: bytes) -> Any:
        connection = self._connected()
        connection.send(data)
        answer = connection.receive()
        if isinstance(answer, str):
            self.close()
            if answer.startswith("busy:"):
                raise NetworkError(answer)
            raise DataError(f"the server refuses: {answer}")
        return unpack(answer)

    def act(self, observation: Any, instruction: str, unnorm_key: str | None = None) -> np.ndarray:
        data = pack(openpi(observed(observation), instruction, unnorm_key, self.names))
        return _actions(self.patiently(lambda: self._asked(data)))

    def reset(self) -> None:
        if self.metadata.get("vertebra"):  # openpi's own servers remember nothing
            self.patiently(lambda: self._asked(pack({"type": "reset"})))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class OverHTTP(Remote):
    """`POST /act`, in our spelling, OpenVLA's or OFT's."""

    def __init__(self, url: str, *, session: str | None, protocol: str = "vertebra", **options: Any) -> None:
        super().__init__(url, **options)
        parts = urlsplit(url)
        self.session, self.protocol = session or uuid.uuid4().hex, protocol
        self._path = parts.path.rstrip("/")
        self._path = self._path.removesuffix("/act")
        self._secure, self._host = parts.scheme == "https", parts.netloc
        self._connection: http.client.HTTPConnection | None = None
        if protocol == "vertebra":
            self.metadata = self.patiently(lambda: self._asked("GET", "/info", None, "application/json"))

    def act(self, observation: Any, instruction: str, unnorm_key: str | None = None) -> np.ndarray:
        seen = observed(observation)
        if self.protocol == "vertebra":
            given = {**seen, "instruction": instruction, "session": self.session}
            given |= {} if unnorm_key is None else {"unnorm_key": unnorm_key}
            data, kind = pack(given), "application/msgpack"
        else:
            spelled = (openvla if self.protocol == "openvla" else oft)(seen, instruction, unnorm_key)
            data, kind = to_json(spelled).encode(), "application/json"
        return _actions(self.patiently(lambda: self._asked("POST", "/act", data, kind)))

    def reset(self) -> None:
        if self.protocol == "vertebra":
            data = pack({"session": self.session})
            self.patiently(lambda: self._asked("POST", "/reset", data, "application/msgpack"))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _made(self) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, timeout=self.timeout, context=context)
        return http.client.HTTPConnection(self._host, timeout=self.timeout)

    def _asked(self, method: str, path: str, data: bytes | None, kind: str) -> Any:
        headers = {**self.headers, "Content-Type": kind, "Accept": kind}
        if self._connection is None:
            self._connection = self._made()
        try:
            self._connection.request(method, self._path + path, data, headers)
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NetworkError(f"{self.url} did not answer ({error or type(error).__name__})") from None
        if answer.status != 200:
            text = body[:2000].decode("utf-8", "replace")
            if answer.status in (502, 503):
                raise NetworkError(f"the server is busy ({answer.status}): {text}")
            if answer.status >= 500 and self.protocol == "vertebra" and not text.startswith('{"error"'):
                # our servers put their faults in JSON: this one came from a balancer whose server went away
                raise NetworkError(f"what stands before the server failed ({answer.status}): {text}")
            wrong = ConfigError if answer.status in (401, 403) else DataError
            raise wrong(f"the server refuses ({answer.status}): {text}")
        packed = answer.headers.get_content_type() == "application/msgpack"
        value = unpack(body) if packed else from_json(body)
        return from_json(value) if isinstance(value, str) and value.startswith(("{", "[")) else value


def _actions(answer: Any) -> np.ndarray:
    """[k, dims] of an answer in any dialect."""
    found = answer.get("actions", answer.get("action")) if isinstance(answer, Mapping) else answer
    if found is None or isinstance(found, str | bytes):
        raise DataError(f"the answer holds no actions: {str(answer)[:200]}")
    try:
        actions = np.asarray(found, np.float64)
    except (TypeError, ValueError):
        raise DataError(f"the answer's actions are no numbers: {str(found)[:200]}") from None
    if actions.ndim == 1:
        actions = actions[None]
    if actions.ndim != 2:
        raise DataError(f"the answer's actions have the shape {actions.shape}; expected [steps, dims]")
    return actions
