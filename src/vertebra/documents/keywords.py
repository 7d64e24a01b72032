"""The keywords of a JSON schema, and the values that each may have: one look at a schema finds all that are none, before
anything is read of it. What keywords mean for a field is known one room up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

DEEPEST = 100
"""Levels of a schema; a page has no such depth, and each level takes room on Python's stack."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a number that JSON has, in the range of a float; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _is_count(value: Any) -> bool:
    return is_number(value) and value >= 0 and value == int(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _are_texts(value: Any) -> bool:
    return _is_list(value) and all(isinstance(one, str) for one in value)


Rule = tuple[str, Callable[[Any], bool]]
_TEXT: Rule = ("a text", _is_text)
_FLAG: Rule = ("true or false", _is_flag)
_NUMBER: Rule = ("a number", is_number)
_COUNT: Rule = ("a whole number from 0 on", _is_count)
_OBJECT: Rule = ("an object with named entries", _is_object)
_SCHEMAS: Rule = ("a list of one schema or more", lambda value: _is_list(value) and len(value) > 0)
KEYWORDS: dict[str, Rule] = {
    "$ref": _TEXT, "description": _TEXT, "format": _TEXT, "pattern": _TEXT,
    "type": ("the name of a type, or a list of such names", lambda value: _is_text(value) or _are_texts(value)),
    "properties": _OBJECT, "$defs": _OBJECT, "definitions": _OBJECT,
    "required": ("a list of names, in the object that has these properties", _are_texts),
    "items": ("the schema of one item", lambda value: isinstance(value, Mapping | bool)),
    "allOf": _SCHEMAS, "anyOf": _SCHEMAS, "oneOf": _SCHEMAS,
    "enum": ("a list of values", _is_list), "const": ("any value", lambda value: True),
    "minLength": _COUNT, "maxLength": _COUNT, "minItems": _COUNT, "maxItems": _COUNT, "uniqueItems": _FLAG,
    "minimum": _NUMBER, "maximum": _NUMBER, "exclusiveMinimum": _NUMBER, "exclusiveMaximum": _NUMBER,
    "multipleOf": ("a number above 0", lambda value: is_number(value) and value > 0),
    "x-free": _FLAG, "x-across": _FLAG,
}  # fmt: skip
"""Those that are read: what is expected of their values."""
UNREAD = {
    "$schema", "$id", "$comment", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary", "title", "default", "examples",
    "example", "readOnly", "writeOnly", "deprecated", "nullable", "discriminator", "if", "then", "else", "not",
    "additionalProperties", "patternProperties", "propertyNames", "minProperties", "maxProperties", "unevaluatedProperties",
    "dependencies", "dependentRequired", "dependentSchemas", "prefixItems", "additionalItems", "unevaluatedItems", "contains",
    "minContains", "maxContains", "contentEncoding", "contentMediaType", "contentSchema",
}  # fmt: skip
"""Keywords that say nothing about what to look for on a page."""


def is_keyword(name: Any) -> bool:
    """Whether a JSON schema has such a key; those that begin with `x-` are anybody's own."""
    return name in KEYWORDS or name in UNREAD or str(name).startswith("x-")


def wrong_values(given: Mapping[Any, Any]) -> list[str]:
    """Which keywords of one schema have values that they cannot have, in words."""
    return [
        f"`{name}` is {shown(value)}; expected {KEYWORDS[name][0]}"
        for name, value in given.items()
        if name in KEYWORDS and not KEYWORDS[name][1](value)
    ]


def shown(value: Any, most: int = 60) -> str:
    """A value as a message quotes it; some cannot be written at all."""
    try:
        return f"{value!r:.{most}}"
    except (ValueError, RecursionError):  # an integer of thousands of digits; a list in itself
        return f"a {type(value).__name__}"


def deeper_than(given: Any, levels: int = DEEPEST) -> bool:
    """Whether objects and lists stand in each other in more levels; seen level by level, on no stack."""
    level = {id(given): given}
    for _ in range(levels):
        level = {id(one): one for each in level.values() for one in _inside(each)}
    return bool(level)


def _inside(given: Any) -> Iterator[Any]:
    values = given.values() if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else ()
    yield from (one for one in values if isinstance(one, Mapping | list | tuple))
