"""Overrides: `a.b=c` set in a tree of settings, the text after `=` read as the type of its field."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vertebra.config.files import parse
from vertebra.config.values import field_types, nearest, options_of, spelled
from vertebra.errors import ConfigError, shortened


def applied(cls: type, tree: Mapping[str, Any], overrides: Iterable[str], faults: list[str]) -> dict[str, Any]:
    """The tree with every override set that can be; what is wrong with the others joins `faults`."""
    result = _copied(tree)
    for override in overrides:
        name, equals, text = override.partition("=")
        try:
            if not equals or not name.strip():
                raise ConfigError(f"override `{shortened(override)}`: expected `name=value`, as in `optim.lr=1e-4`")
            changed = _copied(result)  # one that fails halfway has made mappings on its way
            _set(cls, changed, name.strip(), text.strip())
            result = changed
        except ConfigError as error:
            faults.append(str(error))
    return result


def _copied(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


def _set(cls: type, tree: dict[str, Any], name: str, text: str) -> None:
    """Walk types and tree together, making what is absent on the way, and set the last name."""
    parts = name.split(".")
    kind: Any = cls
    place: Any = tree
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        kind, key = _step(kind, place, part, ".".join(parts[:depth]), cls)
        if last:
            place[key] = _parsed(kind, text, name)
            return
        below = place[key] if isinstance(place, list) else place.get(key)
        if not isinstance(below, (dict, list)):
            below = {}
            place[key] = below
        place = below


def _step(kind: Any, place: Any, part: str, above: str, root: type) -> tuple[Any, Any]:
    """The type of `part` inside `kind`, and its key in the tree."""
    for option in options_of(kind):
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if dataclasses.is_dataclass(option) and part in field_types(option):  # type: ignore[arg-type]
            return field_types(option)[part], part  # type: ignore[arg-type]
        if origin in (dict, Mapping):
            return arguments[1], part
        if origin in (list, tuple, Sequence) and isinstance(place, list):
            if part not in map(str, range(len(place))):
                raise ConfigError(f"`{above}` is a list of {len(place)}; `{part}` is no index into it")
            return arguments[0], int(part)
    full = f"{above}.{part}" if above else part
    elsewhere = [known for known in _names(root) if known.rpartition(".")[2] == part]
    if elsewhere:
        raise ConfigError(f"unknown setting `{full}`. Did you mean {' or '.join(f'`{known}`' for known in elsewhere)}?")
    inside = [option for option in options_of(kind) if dataclasses.is_dataclass(option)]
    if not inside:
        raise ConfigError(f"`{above}` is one value ({spelled(kind)}); `{full}` does not exist in it")
    raise ConfigError(f"unknown setting `{full}`.{nearest(inside[0], part, above)}")


def _names(cls: Any, above: str = "") -> Iterable[str]:
    for name, kind in field_types(cls).items():
        yield above + name
        for option in options_of(kind):
            if dataclasses.is_dataclass(option):
                yield from _names(option, f"{above}{name}.")


def _parsed(kind: Any, text: str, name: str) -> Any:
    """The text of an override as its type: words stay words, lists may be written `a,b`."""
    options = options_of(kind)
    optional = type(None) in typing.get_args(kind)
    if optional and text.lower() in ("null", "none", "~"):
        return None
    if not any(option in (int, float, bool) or typing.get_origin(option) for option in options) and (
        str in options or Path in options
    ):
        return text
    listed = any(typing.get_origin(option) in (list, tuple, Sequence) for option in options)
    if listed and not text.startswith("["):
        if str in options:
            return text
        text = f"[{text}]"
    return parse(text, f"override `{name}={shortened(text)}`")
