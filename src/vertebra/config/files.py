"""Configs as files: YAML or JSON read without a surprise, and written whole with every default spelled out.

Whatever a file or a text holds, what comes out is a plain tree or one `ConfigError`: numbers of thousands of digits,
dates that are none, keys that are lists and brackets without end are faults of the text, not of the parser.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from vertebra.errors import ConfigError
from vertebra.folders import write_file


def read_mapping(path: str | Path) -> dict[str, Any]:
    """What a YAML or JSON file holds, unchecked but for duplicate keys."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be read: {error.strerror}. Expected a YAML or JSON file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"`{path}` is no text in UTF-8 ({error.reason} at byte {error.start})") from error
    # JSON is YAML, but for tabs and some escapes
    found = parse(text, f"`{path}`", json_alone=str(path).endswith(".json"))
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(f"`{path}` holds a {type(found).__name__}; expected a mapping of settings")
    return found


def parse(text: str, where: str, *, json_alone: bool = False) -> Any:
    """The plain values of a text; `where` opens the message of what is wrong with it."""
    try:
        return json.loads(text, object_pairs_hook=_unique) if json_alone else yaml.load(text, _Loader)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where} cannot be parsed: too many brackets inside each other") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, a number of 5,000 digits
        raise ConfigError(f"{where} cannot be parsed: {error}") from error


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


def _unique(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if isinstance(key, (dict, list)):
            raise ConfigError(f"a name is a {type(key).__name__}; expected text before the colon")
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
