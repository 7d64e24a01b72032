"""Frozen keyword-only dataclasses ⇄ YAML and JSON, strictly: every key, every type and every override is checked.

    read(RunConfig, "recipe.yaml", ["optim.lr=1e-4"])    a config, or one error that lists all faults
    write(config, "run.yaml")                            the resolved config, every default spelled out

The dataclasses stand beside the code that they configure; this package uses none of them. Fields may be bool, int,
float, str, Path, None, Literal, unions, lists, tuples, `dict[str, …]`, and dataclasses of these. What a number may be
stands beside its field, as in `Annotated[int, Bound(least=1)]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vertebra.config.files import differences, plain, read_mapping, write
from vertebra.config.overrides import applied
from vertebra.config.values import Amount, Bound, Count, Filled, Place, Share, Some, checked, given, require_bounds
from vertebra.errors import ConfigError

__all__ = [
    "Amount",
    "Bound",
    "Count",
    "Filled",
    "Place",
    "Share",
    "Some",
    "apply",
    "build",
    "differences",
    "given",
    "plain",
    "read",
    "read_mapping",
    "recorded",
    "require_bounds",
    "resolve",
    "write",
]

T = TypeVar("T")


def read(cls: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """The config in a YAML or JSON file, with overrides (`a.b=c`) applied in order."""
    return resolve(cls, read_mapping(path), overrides, where=str(path))


def build(cls: type[T], tree: Mapping[str, Any], *, where: str = "the config") -> T:
    """A config from plain values. All faults come at once, each with its dotted name."""
    return resolve(cls, tree, where=where)


def recorded(cls: type[T], record: Mapping[str, Any], name: str, *, where: str, of: str, advice: str) -> T:
    """What a model's `record` keeps under a name; one that is missing or damaged is an error."""
    if not isinstance(record.get(name), Mapping):
        raise ConfigError(f"{where} has no record of {of} (`Model.record[{name!r}]`), {advice}")
    return build(cls, record[name], where=f"the record of {of} of {where}")


def resolve(cls: type[T], tree: Mapping[str, Any], overrides: Iterable[str] = (), *, where: str = "the config") -> T:
    """A config from plain values and overrides; the faults of both come in one error."""
    faults: list[str] = []
    made = checked(cls, applied(cls, tree, overrides, faults), faults)
    if faults:
        raise ConfigError(f"faults in {where}:\n" + "\n".join(f"  {fault}" for fault in faults))
    return made


def apply(cls: type, tree: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """The tree with every `a.b=c` set; the text after `=` is read as the type of the field."""
    faults: list[str] = []
    result = applied(cls, tree, overrides, faults)
    if faults:
        raise ConfigError("\n".join(faults))
    return result
