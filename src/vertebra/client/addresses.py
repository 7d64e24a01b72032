"""`connect`: from an address, or a policy, to a client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from vertebra.client.clients import Client, Local, OverHTTP, OverWebSocket
from vertebra.errors import ConfigError, UnknownNameError

PROTOCOLS = {
    "vertebra": ("http", "https"),
    "openvla": ("http", "https"),
    "oft": ("http", "https"),
    "openpi": ("ws", "wss"),
}


def connect(
    target: Any, *, protocol: str | None = None, token: str | None = None, session: str | None = None,
    names: Mapping[str, str] | None = None, timeout: float = 60.0, patience: float = 30.0,
) -> Client:  # fmt: skip
    """Whoever acts behind an address.

    `target`: `http://…` (`protocol`: `vertebra`, or another's server: `openvla`, `oft`), `ws://…` (`openpi`, which ours
    speaks too), or a policy in this process. `session`: the robot's name, by which a server remembers it; by default a
    new one. `names`: cameras, `proprio` and `instruction` by openpi's keys, where they differ from `observation/CAMERA`,
    `observation/state`, `prompt`. `timeout`: seconds of one answer; `patience`: seconds in which a server that is away or
    busy is asked again.
    """
    if not isinstance(target, str):
        if not callable(getattr(target, "act", None)):
            raise ConfigError(f"a {type(target).__name__} cannot act; expected an address or a policy")
        return Local(target, session)
    scheme = urlsplit(target).scheme
    if scheme not in ("http", "https", "ws", "wss"):
        raise ConfigError(f"`{target}` is no address; expected http://HOST:PORT or ws://HOST:PORT")
    protocol = protocol or ("openpi" if scheme in ("ws", "wss") else "vertebra")
    if protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", protocol, PROTOCOLS)
    if scheme not in PROTOCOLS[protocol]:
        raise ConfigError(f"protocol `{protocol}` goes over {PROTOCOLS[protocol][0]}://, and the address is {target}")
    options: dict[str, Any] = {"token": token, "session": session, "timeout": timeout, "patience": patience}
    if protocol == "openpi":
        return OverWebSocket(target, names=names, **options)
    if names is not None:
        raise ConfigError(f"`names` are openpi's keys, and the protocol is `{protocol}`; leave them out")
    return OverHTTP(target, protocol=protocol, **options)
