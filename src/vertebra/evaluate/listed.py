"""A list of arms as a person types it (`swapped,blind=DIR`), read by whoever knows its arms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from vertebra.errors import ConfigError

Arm = TypeVar("Arm", bound=Any)


def listed(given: str | Sequence[str], itself: Arm, read: Callable[[str], Arm]) -> tuple[Arm, ...]:
    """The arms in their order; `itself`, with which all others are compared, stands first."""
    texts = [part.strip() for part in given.split(",")] if isinstance(given, str) else list(given)
    made = [itself, *(read(text) for text in texts if text)]
    names = [arm.name for arm in made]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(
            f"two arms are called {', '.join(sorted(twice))}; name each once (`{itself.name}` is the {itself.name} itself)"
        )
    return tuple(made)
