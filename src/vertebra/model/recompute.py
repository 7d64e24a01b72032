"""Gradient checkpointing as a model can do it, and what is refused of it. It does not know how layers recompute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vertebra.errors import ConfigError

_PLAIN = {"every_n_layers": 1, "offload": False, "use_reentrant": False}


def require_plain(given: Mapping[str, Any]) -> None:
    """Raise for options of another form than the one that is made here."""
    other = {name: value for name, value in given.items() if name not in _PLAIN or value != _PLAIN[name]}
    if other:
        raise ConfigError(
            f"gradient checkpointing was requested with {other}; only the plain non-reentrant form is made here (the "
            "reentrant one gives no gradients beneath a frozen backbone)"
        )


def require_no_keys(heads: Iterable[tuple[str, Any]]) -> None:
    """Raise where a head reads what a recomputing model does not keep."""
    reading = [name for name, head in heads if head.reads == "keys"]
    if reading:
        raise ConfigError(
            f"the head `{reading[0]}` reads the keys that each layer keeps, and gradient checkpointing takes them away "
            "while a model trains. Leave optim.checkpointing out, or take a head that reads hidden states (`l1`)"
        )
