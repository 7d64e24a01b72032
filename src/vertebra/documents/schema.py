"""A schema as fields: a pydantic class, a JSON schema (or a file of one), or names with kinds.

    fields_of(Receipt)                                       a pydantic class
    fields_of({"type": "object", "properties": {…}})         a JSON schema, `$ref`s inside of it followed
    fields_of({"total": "number", "items": [{"name": "text"}]})

What no document could satisfy is refused here, before anything runs: contradictions, recursion, nothing to look for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vertebra.documents.field import KINDS, Field, Kind
from vertebra.errors import ConfigError, DataError, UnknownNameError, did_you_mean, shortened
from vertebra.reading import json_of, reading

TYPES: dict[str, Kind] = {
    "string": "text", "number": "number", "integer": "integer", "boolean": "boolean", "object": "record", "array": "list",
}  # fmt: skip
FORMATS: dict[str, Kind] = {"date": "date", "date-time": "datetime", "time": "time"}
RULES = ("pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
         "minItems", "maxItems", "uniqueItems")  # fmt: skip
_MARKS = {"properties", "$ref", "$defs", "definitions", "allOf", "anyOf", "oneOf"}
_RANGES = (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"))
SHORT: dict[str, Kind] = {
    **{kind: kind for kind in KINDS if kind not in ("choice", "record", "list")},
    "string": "text",
    "amount": "number",
}


def fields_of(schema: Any) -> tuple[Field, ...]:
    """The fields of a schema, in its order."""
    given = schema_of(schema)
    if isinstance(given, Mapping) and not _is_schema(given):
        return tuple(_short(str(name), kind, str(name)) for name, kind in _some(given).items())
    if not isinstance(given, Mapping):
        return tuple(_short(name, "text", name) for name in _names(given))
    whole = _read(given, "", given, (), required=True)
    if whole.kind != "record":
        raise ConfigError(
            f"the schema describes a {whole.kind}; expected an object with `properties`, the fields to look for"
        )
    return whole.fields


def schema_of(schema: Any) -> Any:
    """The JSON of a schema: of a pydantic class what it says of itself, of a file what stands in it."""
    if hasattr(schema, "model_json_schema"):
        with reading("the pydantic class gave no JSON schema", "give types that have one", error=ConfigError):
            return schema.model_json_schema()
    if isinstance(schema, str | Path):
        try:
            given = json_of(Path(schema).read_bytes())
        except OSError as error:
            raise DataError(f"the schema `{schema}` cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise DataError(f"the schema `{schema}` is no JSON: {error}") from error
        return given
    if isinstance(schema, Mapping | list | tuple):
        return schema
    raise ConfigError(
        f"a schema is a pydantic class, a JSON schema, its file, or names of fields; found a {type(schema).__name__}"
    )


def _is_schema(given: Mapping[str, Any]) -> bool:
    return bool(_MARKS & given.keys()) or given.get("type") == "object"


def _some(given: Mapping[str, Any]) -> Mapping[str, Any]:
    if not given:
        raise ConfigError("the schema names no field; give at least one")
    return given


def _names(given: Sequence[Any]) -> list[str]:
    if not given or not all(isinstance(name, str) and name for name in given) or len(set(given)) < len(given):
        raise ConfigError(f"names of fields are {given!r:.80}; expected texts, none empty, none twice")
    return list(given)


def _short(name: str, kind: Any, where: str) -> Field:
    """A field given by a word for its kind, by the fields inside of it, or by a list of either."""
    if isinstance(kind, str):
        if kind not in SHORT:
            raise UnknownNameError(f"kind of the field `{where}`:", kind, SHORT)
        return Field(name=name, kind=SHORT[kind])
    if isinstance(kind, Mapping):
        if _is_schema(kind) or "type" in kind or "enum" in kind:
            return _read(kind, name, kind, (), required=False)
        inner = tuple(_short(str(own), one, f"{where}.{own}") for own, one in _some(kind).items())
        return Field(name=name, kind="record", fields=inner)
    if isinstance(kind, list) and len(kind) == 1:
        return Field(name=name, kind="list", item=_short(name, kind[0], where))
    raise ConfigError(
        f"the field `{where}` is {kind!r:.60}; expected a kind, a dict of fields, or a list of one of these"
    )


def _read(given: Any, name: str, root: Mapping[str, Any], trail: tuple[str, ...], *, required: bool) -> Field:
    """One schema, wherever it stands."""
    where = f"the field `{name}`" if name else "the schema"
    given, trail = _followed(given, root, trail, where)
    kind = _kind(given, where)
    common: dict[str, Any] = {
        "name": name, "required": required, "description": str(given.get("description") or ""),
        "rules": {key: given[key] for key in RULES if key in given},
        "free": bool(given.get("x-free", False)), "across": bool(given.get("x-across", False)),
    }  # fmt: skip
    _require_possible(common["rules"], where)
    if kind == "choice":
        choices = tuple(given["enum"]) if "enum" in given else (given["const"],)
        some = tuple(one for one in choices if one is not None)
        if not some:
            raise ConfigError(f"{where} may have no value: its `enum` is {list(choices)!r:.60}; give at least one")
        if not all(isinstance(one, str | int | float) for one in some):
            raise ConfigError(f"{where} has the choices {list(some)!r:.80}; expected texts, numbers, true or false")
        return Field(**common, kind=kind, choices=some)
    if kind == "record":
        return Field(**common, kind=kind, fields=_inner(given, root, trail, where))
    if kind == "list":
        if not isinstance(given.get("items"), Mapping):
            raise ConfigError(f"{where} is an array without `items`; give the schema of one item")
        item = _read(given["items"], name, root, trail, required=True)
        if item.kind == "list":
            raise ConfigError(f"{where} is a list of lists; expected a list of values or of objects")
        return Field(**common, kind=kind, item=item)
    return Field(**common, kind=kind)


def _inner(given: Mapping[str, Any], root: Mapping[str, Any], trail: tuple[str, ...], where: str) -> tuple[Field, ...]:
    properties = given.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        hint = "; a dict with free keys has nothing to look for" if "additionalProperties" in given else ""
        raise ConfigError(f"{where} is an object that names no field{hint}; give `properties`")
    needed = given.get("required", [])
    for name in needed:
        if name not in properties:
            raise ConfigError(
                f"{where} requires `{name}`, which is none of its properties.{did_you_mean(str(name), properties)}"
            )
    return tuple(_read(one, name, root, trail, required=name in needed) for name, one in properties.items())


def _followed(
    given: Any, root: Mapping[str, Any], trail: tuple[str, ...], where: str
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """A schema with its references followed, its `allOf` merged, and of its alternatives the first that is no null."""
    if given is False:
        raise ConfigError(f"{where} is `false`, which no value satisfies; leave it out")
    if given is True:
        return {}, trail
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} is {given!r:.60}; expected a schema, which is an object")
    if "$ref" in given:
        target = str(given["$ref"])
        if target in trail:
            circle = " → ".join(one.rpartition("/")[2] or one for one in (*trail[trail.index(target) :], target))
            raise ConfigError(f"{where} is recursive ({circle}); a document has a finite depth: write the levels out")
        found = _target(target, root, where)
        others = {key: value for key, value in given.items() if key != "$ref"}
        inner, trail = _followed(found, root, (*trail, target), where)
        return {**inner, **others}, trail
    for one in given.get("allOf", ()):
        inner, trail = _followed(one, root, trail, where)
        given = _merged(given, inner, where)
    for key in ("anyOf", "oneOf"):
        if key in given:
            inner, trail = _alternative(given[key], root, trail, where)
            given = {**inner, **{name: value for name, value in given.items() if name != key}}
    return given, trail


def _target(target: str, root: Mapping[str, Any], where: str) -> Any:
    found: Any = root
    if not target.startswith("#"):
        raise ConfigError(f"{where} refers to {target!r:.60}; only references inside the schema (#/…) are followed")
    for part in target.lstrip("#/").split("/") if target != "#" else ():
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or part not in found:
            raise ConfigError(f"{where} refers to {target!r:.60}, which is not in the schema")
        found = found[part]
    return found


def _merged(given: Mapping[str, Any], inner: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Both at once: of limits the tighter one, of everything else what does not contradict."""
    made = dict(given)
    for key, value in inner.items():
        if key not in made or key in ("title", "description"):
            made.setdefault(key, value)
        elif key in ("minimum", "minLength", "minItems"):
            made[key] = max(made[key], value)
        elif key in ("maximum", "maxLength", "maxItems"):
            made[key] = min(made[key], value)
        elif key == "properties":
            made[key] = {**value, **made[key]}
        elif key == "required":
            made[key] = [*dict.fromkeys([*made[key], *value])]
        elif made[key] != value:
            raise ConfigError(
                f"{where} cannot be met: `allOf` asks for `{key}` {shortened(str(made[key]), 40)} and "
                f"{shortened(str(value), 40)}"
            )
    return made


def _alternative(
    given: Any, root: Mapping[str, Any], trail: tuple[str, ...], where: str
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    ways = [_followed(one, root, trail, where) for one in given]
    some = [way for way in ways if way[0].get("type") != "null"]
    if not some:
        raise ConfigError(f"{where} may only be null; leave it out")
    kinds = {_kind(way[0], where) for way in some}
    if len(some) > 1 and kinds & {"record", "list"}:
        raise ConfigError(
            f"{where} may be one of several things ({', '.join(sorted(kinds))}); of objects and arrays give one alone"
        )
    # numbers that pydantic takes from texts too: the text on the page becomes the number
    return next((way for way in some if _kind(way[0], where) != "text"), some[0])


def _kind(given: Mapping[str, Any], where: str) -> Kind:
    if "enum" in given or "const" in given:
        return "choice"
    types = given.get("type")
    names = [one for one in (types if isinstance(types, list) else [types]) if one not in (None, "null")]
    if not names and types is not None:
        raise ConfigError(f"{where} may only be null; leave it out")
    if len(names) > 1:
        names = [name for name in names if name != "string"][:1] or names[:1]
    if not names:
        return "record" if "properties" in given else "list" if "items" in given else "text"
    if names[0] not in TYPES:
        raise UnknownNameError(f"type of {where}:", names[0], TYPES)
    kind = TYPES[names[0]]
    return FORMATS.get(str(given.get("format")), kind) if kind == "text" else kind


def _require_possible(rules: Mapping[str, Any], where: str) -> None:
    for low, high in _RANGES:
        if low in rules and high in rules and rules[low] > rules[high]:
            raise ConfigError(f"{where} cannot be met: {low} is {rules[low]} and {high} is {rules[high]}")
    if "pattern" in rules:
        try:
            re.compile(rules["pattern"])
        except re.error as error:
            raise ConfigError(f"{where} has the pattern {rules['pattern']!r:.60}, which is none: {error}") from error
