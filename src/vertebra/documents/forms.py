"""The two forms of a schema that is a dict: JSON schema, and fields with kinds. Which of them one is in follows from all of
its keys and values, never from one alone: a field may be called `type`, and a vehicle have one beside its plate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vertebra.documents.field import KINDS, Kind
from vertebra.documents.keywords import is_keyword, shown, wrong_values
from vertebra.errors import ConfigError

TYPES: dict[str, Kind] = {
    "string": "text", "number": "number", "integer": "integer", "boolean": "boolean", "object": "record", "array": "list",
}  # fmt: skip
SHORT: dict[str, Kind] = {
    **{kind: kind for kind in KINDS if kind not in ("choice", "record", "list")},
    "string": "text",
    "amount": "number",
}
_MARKS = {"properties", "$ref", "$defs", "definitions", "allOf", "anyOf", "oneOf"}


def is_schema(given: Mapping[Any, Any], where: str, *, inside: bool = False) -> bool:
    """Whether a dict is a JSON schema, or fields by their names; one that could be either is refused. `inside`: of a short
    form, where `type` or `enum` make a schema too."""
    marked = bool(_MARKS & given.keys()) or given.get("type") == "object"
    if not marked and not (inside and {"type", "enum"} & given.keys()):
        return False
    strange = next((str(key) for key in given if not is_keyword(key)), None)
    faults = wrong_values(given) or [f"`type` is {name!r}" for name in types_of(given) if name not in TYPES]
    short = all(_like_kind(one) for one in given.values())
    if strange is None and not (faults and short):
        return True
    if strange is not None and not short and marked:
        return True  # of a keyword that is unknown a JSON schema takes no notice
    if strange is not None and short and (faults or not marked):
        return False
    if strange is None:
        why = f"its keys are all keywords of a JSON schema, and its values are kinds of fields ({'; '.join(faults)})"
    elif short:
        why = f"`{strange}` is no keyword of a JSON schema, and its other keys are"
    else:
        why = f"`{strange}` is no keyword of a JSON schema, and {_no_kind(given)} no kind of a field"
    raise ConfigError(
        f"{where} is neither clearly a JSON schema nor clearly fields with kinds: {why}. For fields write "
        '{"type": "object", "properties": {…}}; for a schema leave out what is no keyword'
    )


def _like_kind(given: Any) -> bool:
    """Whether the short form may have it in the place of a kind."""
    if isinstance(given, list) and len(given) == 1:
        return _like_kind(given[0])
    return given in SHORT if isinstance(given, str) else isinstance(given, Mapping) and bool(given)


def _no_kind(given: Mapping[Any, Any]) -> str:
    return next(f"{shown(one)} (`{name}`)" for name, one in given.items() if not _like_kind(one))


def types_of(given: Mapping[str, Any]) -> list[str]:
    """The types that a schema allows, null aside."""
    types = given.get("type")
    return [one for one in (types if isinstance(types, list | tuple) else [types]) if one not in (None, "null")]
