"""Frozen keyword-only dataclasses ⇄ YAML and JSON, strictly: every key, every type and every override is checked.

    read(RunConfig, "recipe.yaml", ["optim.lr=1e-4"])    a config, or one error that lists all faults
    write(config, "run.yaml")                            the resolved config, every default spelled out

The dataclasses stand beside the code that they configure; this file knows none of them. Fields may be bool, int,
float, str, Path, None, Literal, unions, lists, tuples, `dict[str, …]`, and dataclasses of these.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from vertebra.errors import ConfigError, did_you_mean
from vertebra.folders import write_file
from vertebra.reading import reading

T = TypeVar("T")


def read(cls: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """The config in a YAML or JSON file, with overrides (`a.b=c`) applied in order."""
    return build(cls, apply(cls, read_mapping(path), overrides), where=str(path))


def read_mapping(path: str | Path) -> dict[str, Any]:
    """What a YAML or JSON file says, unchecked but for duplicate keys."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be read: {error.strerror}. Expected a YAML or JSON file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"`{path}` is no text in UTF-8 ({error.reason} at byte {error.start})") from error
    with reading(f"`{path}` cannot be parsed", "correct the file", error=ConfigError):
        # JSON is YAML, but for tabs and some escapes
        found = json.loads(text, object_pairs_hook=_unique) if str(path).endswith(".json") else yaml.load(text, _Loader)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(f"`{path}` holds a {type(found).__name__}; expected a mapping of settings")
    return found


def write(config: Any, path: str | Path) -> Path:
    """Write every setting of a config, defaults too, in the order of its fields."""
    path = Path(path)
    tree = plain(config)
    if path.suffix == ".json":
        return write_file(path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
    return write_file(path, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120))


def plain(value: Any) -> Any:
    """A config as mappings, lists and plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def build(cls: type[T], tree: Mapping[str, Any], *, where: str = "the config") -> T:
    """A config from plain values. All faults are told at once, each with its dotted name."""
    faults: list[str] = []
    made = _dataclass(cls, tree, "", faults)
    if faults:
        raise ConfigError(f"{where} does not fit {cls.__name__}:\n" + "\n".join(f"  {fault}" for fault in faults))
    return made


def apply(cls: type, tree: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """The tree with every `a.b=c` set; the text after `=` is read as the type of the field."""
    result = _copied(tree)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"override `{override}`: expected `name=value`, as in `optim.lr=1e-4`")
        _set(cls, result, name.strip(), text.strip())
    return result


def differences(before: Any, after: Any) -> list[str]:
    """`name: old → new` for every setting in which two configs (or their plain forms) differ."""
    old, new = dict(_leaves(plain(before))), dict(_leaves(plain(after)))
    names = [*old, *(name for name in new if name not in old)]
    return [f"{n}: {old.get(n, '–')} → {new.get(n, '–')}" for n in names if old.get(n, "–") != new.get(n, "–")]


def _leaves(tree: Any, name: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{name}.{key}" if name else key)
    else:
        yield name, tree


def _copied(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


@cache
def _types(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _dataclass(cls: Any, tree: Any, name: str, faults: list[str]) -> Any:
    if isinstance(tree, cls):
        return tree
    if not isinstance(tree, Mapping):
        faults.append(f"{name or cls.__name__}: {_seen(tree)}; expected settings ({', '.join(_types(cls))})")
        return None
    known = _types(cls)
    before = len(faults)
    for key in tree:
        if key not in known:
            full = f"{name}.{key}" if name else str(key)
            faults.append(f"unknown setting `{full}`.{_nearest(cls, str(key), name)}")
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        full = f"{name}.{field.name}" if name else field.name
        if field.name in tree:
            values[field.name] = _value(known[field.name], tree[field.name], full, faults)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            faults.append(f"{full}: missing; expected {_spelled(known[field.name])}")
    if len(faults) > before:
        return None
    try:
        return cls(**values)
    except ConfigError as error:  # a rule of the dataclass itself
        faults.append(f"{name}: {error}" if name else str(error))
        return None


def _nearest(cls: type, key: str, name: str) -> str:
    known = _types(cls)
    return did_you_mean(key, known) or f" Known{' in ' + name if name else ''}: {', '.join(known)}."


def _value(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    """`value` as the declared type, or a fault."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(kind, value, name, faults)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, name, faults)
    if origin is Literal:
        if value in arguments and type(value) in {type(argument) for argument in arguments}:
            return value
        hint = did_you_mean(str(value), map(str, arguments))
        quote = " (YAML reads on, off, yes and no as booleans: quote the word)" if isinstance(value, bool) else ""
        faults.append(f"{name}: {_seen(value)}; expected {_spelled(kind)}{quote}.{hint}")
        return None
    if origin in (list, tuple, Sequence) or kind in (list, tuple):
        return _sequence(kind, origin or kind, arguments, value, name, faults)
    if origin in (dict, Mapping) or kind is dict:
        if not isinstance(value, Mapping):
            faults.append(f"{name}: {_seen(value)}; expected a mapping")
            return None
        item = arguments[1] if arguments else Any
        return {str(key): _value(item, entry, f"{name}.{key}", faults) for key, entry in value.items()}
    return _scalar(kind, value, name, faults)


def _one_of(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    if value is None and type(None) in typing.get_args(kind):
        return None
    options = _options(kind)
    # an exact type first: 1 in `float | int` stays an int
    for option in sorted(options, key=lambda option: option is not type(value)):
        found: list[str] = []
        result = _value(option, value, name, found)
        if not found:
            return result
    faults += found if len(options) == 1 else [f"{name}: {_seen(value)}; expected {_spelled(kind)}"]
    return None


def _sequence(kind: Any, origin: Any, arguments: tuple[Any, ...], value: Any, name: str, faults: list[str]) -> Any:
    if not isinstance(value, (list, tuple)):
        faults.append(f"{name}: {_seen(value)}; expected a list, as in [a, b]")
        return None
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            faults.append(f"{name}: {len(value)} values; expected {len(arguments)}")
            return None
        kinds: Sequence[Any] = arguments
    else:
        kinds = [arguments[0] if arguments else Any] * len(value)
    made = [_value(k, v, f"{name}.{i}", faults) for i, (k, v) in enumerate(zip(kinds, value, strict=True))]
    return tuple(made) if origin is tuple else made


def _scalar(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    if kind is Any:
        return value
    if kind is float:
        number = _as_float(value)
        if number is not None:
            return number
    elif kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    elif kind is int and isinstance(value, (float, str)):
        number = _as_float(value) if "e" in str(value).lower() or isinstance(value, float) else None
        if number is not None and number.is_integer():
            return int(number)
    elif isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    faults.append(f"{name}: {_seen(value)}; expected {_spelled(kind)}")
    return None


def _as_float(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)  # YAML takes `1e-4` for a word
    except (TypeError, ValueError):
        return None


def _seen(value: Any) -> str:
    return "nothing (null)" if value is None else f"{type(value).__name__} {value!r}"


def _spelled(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_spelled(argument) for argument in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if kind is type(None):
        return "null"
    if origin is not None:
        return str(kind).replace("typing.", "")
    return {float: "a number", int: "an integer", str: "text", bool: "true or false"}.get(kind, kind.__name__)


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
    for option in _options(kind):
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if dataclasses.is_dataclass(option) and part in _types(option):  # type: ignore[arg-type]
            return _types(option)[part], part  # type: ignore[arg-type]
        if origin in (dict, Mapping):
            return arguments[1], part
        if origin in (list, tuple, Sequence) and isinstance(place, list):
            if not part.isdigit() or int(part) >= len(place):
                raise ConfigError(f"`{above}` is a list of {len(place)}; `{part}` is no index into it")
            return arguments[0], int(part)
    full = f"{above}.{part}" if above else part
    elsewhere = [known for known in _names(root) if known.rpartition(".")[2] == part]
    if elsewhere:
        raise ConfigError(f"unknown setting `{full}`. Did you mean {' or '.join(f'`{known}`' for known in elsewhere)}?")
    inside = [option for option in _options(kind) if dataclasses.is_dataclass(option)]
    if not inside:
        raise ConfigError(f"`{above}` is one value ({_spelled(kind)}); `{full}` does not exist in it")
    raise ConfigError(f"unknown setting `{full}`.{_nearest(inside[0], part, above)}")  # type: ignore[arg-type]


def _options(kind: Any) -> list[Any]:
    if typing.get_origin(kind) in (Union, types.UnionType):
        return [argument for argument in typing.get_args(kind) if argument is not type(None)]
    return [kind]


def _names(cls: Any, above: str = "") -> Iterable[str]:
    for name, kind in _types(cls).items():
        yield above + name
        for option in _options(kind):
            if dataclasses.is_dataclass(option):
                yield from _names(option, f"{above}{name}.")


def _parsed(kind: Any, text: str, name: str) -> Any:
    """The text of an override as its type: words stay words, lists may be written `a,b`."""
    options = _options(kind)
    optional = type(None) in typing.get_args(kind)
    if optional and text.lower() in ("null", "none", "~"):
        return None
    if not any(option in (int, float, bool) or typing.get_origin(option) for option in options) and (
        str in options or Path in options
    ):
        return text
    listed = any(typing.get_origin(option) in (list, tuple, Sequence) for option in options)
    if listed and not text.startswith("["):
        text = f"[{text}]"
    with reading(f"override `{name}={text:.200}` cannot be parsed", "correct it", error=ConfigError):
        return yaml.load(text, _Loader)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ConfigError(f"`{key}` is given twice; keep one of them")
        found[key] = value
    return found


class _Loader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys in silence; this one refuses."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    return _unique(
        [(loader.construct_object(k, deep=True), loader.construct_object(v, deep=True)) for k, v in node.value]
    )


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
