"""A schema as fields: a pydantic class, a JSON schema (or a file of one), or names with kinds.

    fields_of(Receipt)                                       a pydantic class
    fields_of({"type": "object", "properties": {…}})         a JSON schema, `$ref`s inside of it followed
    fields_of({"total": "number", "items": [{"name": "text"}]})

What no document could satisfy is refused here, before anything runs: contradictions, recursion, nothing to look for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from vertebra.documents.field import Field, Kind
from vertebra.documents.forms import SHORT, TYPES, is_schema, types_of
from vertebra.documents.keywords import DEEPEST, KEYWORDS, deeper_than, is_number, shown, wrong_values
from vertebra.errors import ConfigError, DataError, UnknownNameError, did_you_mean, shortened
from vertebra.reading import json_of, reading

FORMATS: dict[str, Kind] = {"date": "date", "date-time": "datetime", "time": "time"}
RULES = ("pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
         "minItems", "maxItems", "uniqueItems")  # fmt: skip
MOST = 20_000
"""Schemas that are read, each reference written out: ten that each name the next twice are a thousand fields."""
_RANGES = (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"))


def fields_of(schema: Any) -> tuple[Field, ...]:
    """The fields of a schema, in its order."""
    given = schema_of(schema)
    if deeper_than(given):
        raise ConfigError(f"the schema is nested deeper than {DEEPEST} levels; write it flatter")
    if isinstance(given, Mapping) and not (hasattr(schema, "model_json_schema") or is_schema(given, "the schema")):
        return tuple(_short(str(name), kind, str(name)) for name, kind in _some(given).items())
    if not isinstance(given, Mapping):
        return tuple(_short(name, "text", name) for name in _names(given))
    whole = _read(given, "", _Here(given), required=True)
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


def _some(given: Mapping[str, Any]) -> Mapping[str, Any]:
    if not given:
        raise ConfigError("the schema names no field; give at least one")
    return given


def _names(given: Sequence[Any]) -> list[str]:
    if not given or not all(isinstance(name, str) and name for name in given) or len(set(given)) < len(given):
        raise ConfigError(f"names of fields are {shown(given, 80)}; expected texts, none empty, none twice")
    return list(given)


def _short(name: str, kind: Any, where: str) -> Field:
    """A field given by a word for its kind, by the fields inside of it, or by a list of either."""
    if isinstance(kind, str):
        if kind not in SHORT:
            raise UnknownNameError(f"kind of the field `{where}`:", kind, SHORT)
        return Field(name=name, kind=SHORT[kind])
    if isinstance(kind, Mapping):
        if is_schema(kind, f"the field `{where}`", inside=True):
            return _read(kind, name, _Here(kind, where), required=False)
        inner = tuple(_short(str(own), one, f"{where}.{own}") for own, one in _some(kind).items())
        return Field(name=name, kind="record", fields=inner)
    if isinstance(kind, list) and len(kind) == 1:
        return Field(name=name, kind="list", item=_short(name, kind[0], where))
    raise ConfigError(
        f"the field `{where}` is {shown(kind)}; expected a kind, a dict of fields, or a list of one of these"
    )


@dataclass(frozen=True)
class _Here:
    """Where a schema stands."""

    root: Mapping[str, Any]
    """The whole in which references are looked up."""
    path: str = ""
    trail: tuple[str, ...] = ()
    """The references that led to it."""
    level: int = 0
    seen: Iterator[int] = field(default_factory=count)
    """How many schemas have been read, together."""

    def __str__(self) -> str:
        return f"the field `{shortened(self.path)}`" if self.path else "the schema"

    def down(self, trail: tuple[str, ...], name: str = "") -> _Here:
        """One level further down, in a property of that name."""
        path = f"{self.path}.{name}" if self.path and name else self.path or name
        return replace(self, path=path, trail=trail, level=self.level + 1)


@dataclass(frozen=True)
class _Inner:
    """A schema inside of another, with the references that led to it: not with those that stood beside it."""

    given: Any
    trail: tuple[str, ...] = field(compare=False)


def _read(given: Any, name: str, here: _Here, *, required: bool) -> Field:
    """One schema, wherever it stands."""
    given = _followed(given, here)
    kind = _kind(given, here)
    common: dict[str, Any] = {
        "name": name, "required": required, "description": given.get("description", ""),
        "rules": {key: given[key] for key in RULES if key in given},
        "free": given.get("x-free", False), "across": given.get("x-across", False),
    }  # fmt: skip
    _require_possible(common["rules"], here)
    if kind == "choice":
        choices = tuple(given["enum"]) if "enum" in given else (given["const"],)
        some = tuple(one for one in choices if one is not None)
        if not some:
            raise ConfigError(f"{here} may have no value: its `enum` is {list(choices)!r:.60}; give at least one")
        if not all(isinstance(one, str | bool) or is_number(one) for one in some):
            raise ConfigError(f"{here} has the choices {shown(list(some), 80)}; expected texts, numbers, true or false")
        return Field(**common, kind=kind, choices=some)
    if kind == "record":
        return Field(**common, kind=kind, fields=_inner(given, here))
    if kind == "list":
        inner = given.get("items")
        if inner is None or not isinstance(inner.given, Mapping):
            raise ConfigError(f"{here} is an array without `items`; give the schema of one item")
        item = _read(inner.given, name, here.down(inner.trail), required=True)
        if item.kind == "list":
            raise ConfigError(f"{here} is a list of lists; expected a list of values or of objects")
        return Field(**common, kind=kind, item=item)
    return Field(**common, kind=kind)


def _inner(given: Mapping[str, Any], here: _Here) -> tuple[Field, ...]:
    properties = given.get("properties")
    if not properties:
        hint = "; a dict with free keys has nothing to look for" if "additionalProperties" in given else ""
        raise ConfigError(f"{here} is an object that names no field{hint}; give `properties`")
    needed = given.get("required", [])
    for name in needed:
        if name not in properties:
            raise ConfigError(
                f"{here} requires `{name}`, which is none of its properties.{did_you_mean(name, properties)}"
            )
    return tuple(
        _read(one.given, name, here.down(one.trail, name), required=name in needed) for name, one in properties.items()
    )


def _followed(given: Any, here: _Here) -> dict[str, Any]:
    """A schema with its references followed, its `allOf` merged, and of its alternatives the first that is no null. What
    stands inside of it is an `_Inner`."""
    if here.level > DEEPEST:
        raise ConfigError(f"{here} is nested deeper than {DEEPEST} levels, references included; write it flatter")
    if next(here.seen) >= MOST:
        raise ConfigError(
            f"the schema has more than {MOST:,} parts with its references written out; ask for less at once"
        )
    if given is False:
        raise ConfigError(f"{here} is `false`, which no value satisfies; leave it out")
    if given is True:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{here} is {shown(given)}; expected a schema, which is an object")
    if faults := wrong_values(given):
        raise ConfigError(f"{here} has keywords with values that they cannot have: {'; '.join(faults)}")
    made = dict(given)
    if "properties" in made:
        made["properties"] = {name: _Inner(one, here.trail) for name, one in made["properties"].items()}
    if "items" in made:
        made["items"] = _Inner(made["items"], here.trail)
    if "$ref" in made:
        target = made.pop("$ref")
        if target in here.trail:
            circle = " → ".join(
                one.rpartition("/")[2] or one for one in (*here.trail[here.trail.index(target) :], target)
            )
            raise ConfigError(f"{here} is recursive ({circle}); a document has a finite depth: write the levels out")
        found = _target(target, here)
        made = _merged(made, _followed(found, here.down((*here.trail, target))), here)
    for one in made.pop("allOf", ()):
        made = _merged(made, _followed(one, here.down(here.trail)), here)
    for key in ("anyOf", "oneOf"):
        if key in made:
            made = {**_alternative(made.pop(key), here), **made}
    return made


def _target(target: str, here: _Here) -> Any:
    found: Any = here.root
    if not target.startswith("#"):
        raise ConfigError(f"{here} refers to {target!r:.60}; only references inside the schema (#/…) are followed")
    for part in target.lstrip("#/").split("/") if target != "#" else ():
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or part not in found:
            raise ConfigError(f"{here} refers to {target!r:.60}, which is not in the schema")
        found = found[part]
    return found


def _merged(given: Mapping[str, Any], inner: Mapping[str, Any], here: _Here) -> dict[str, Any]:
    """Both at once: of limits the tighter one, of everything else what does not contradict."""
    made = dict(given)
    for key, value in inner.items():
        if (
            key not in made
            or key not in KEYWORDS
            or key in ("description", "x-free", "x-across", "$defs", "definitions")
        ):
            made.setdefault(key, value)
        elif key in ("minimum", "exclusiveMinimum", "minLength", "minItems", "uniqueItems"):
            made[key] = max(made[key], value)
        elif key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems"):
            made[key] = min(made[key], value)
        elif key == "properties":
            made[key] = {**value, **made[key]}
        elif key == "required":
            made[key] = [*dict.fromkeys([*made[key], *value])]
        elif key == "enum":
            made[key] = [one for one in made[key] if one in value]
        elif made[key] != value:
            raise ConfigError(
                f"{here} cannot be met: `allOf` or `$ref` asks for `{key}` {_quoted(made[key])} and {_quoted(value)}"
            )
    return made


def _quoted(value: Any) -> str:
    return shortened(shown(value.given if isinstance(value, _Inner) else value), 40)


def _alternative(given: Sequence[Any], here: _Here) -> dict[str, Any]:
    ways = [_followed(one, here.down(here.trail)) for one in given]
    some = [way for way in ways if way.get("type") not in ("null", ["null"])]
    if not some:
        raise ConfigError(f"{here} may only be null; leave it out")
    kinds = {_kind(way, here) for way in some}
    if len(some) > 1 and kinds & {"record", "list"}:
        raise ConfigError(
            f"{here} may be one of several things ({', '.join(sorted(kinds))}); of objects and arrays give one alone"
        )
    # numbers that pydantic takes from texts too: the text on the page becomes the number
    return next((way for way in some if _kind(way, here) != "text"), some[0])


def _kind(given: Mapping[str, Any], here: _Here) -> Kind:
    if "enum" in given or "const" in given:
        return "choice"
    names = types_of(given)
    if not names and "type" in given:
        raise ConfigError(f"{here} may only be null; leave it out")
    for name in names:
        if name not in TYPES:
            raise UnknownNameError(f"type of {here}:", name, TYPES)
    if len(names) > 1:
        names = [name for name in names if name != "string"][:1] or names[:1]
    if not names:
        return "record" if "properties" in given else "list" if "items" in given else "text"
    kind = TYPES[names[0]]
    return FORMATS.get(given.get("format", ""), kind) if kind == "text" else kind


def _require_possible(rules: Mapping[str, Any], here: _Here) -> None:
    for low, high in _RANGES:
        if low in rules and high in rules and rules[low] > rules[high]:
            raise ConfigError(f"{here} cannot be met: {low} is {rules[low]} and {high} is {rules[high]}")
    if "pattern" in rules:
        try:
            re.compile(rules["pattern"])
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigError(f"{here} has the pattern {rules['pattern']!r:.60}, which is none: {error}") from error
