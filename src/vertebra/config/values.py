"""Values against the types of dataclass fields: each is what it must be, or a fault with its dotted name.

Faults are collected and never raised here, so that one error lists them all.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from vertebra.errors import ConfigError, did_you_mean, shortened

T = TypeVar("T")

_WORD = 2**63
"""Settings are counted in 64 bits, here and in everything that they configure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound:
    """What a number may be; never infinite, and never "not a number"."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.least is not None and self.most is None and self.below is None:
            return f"{self.least:.12g} or more"
        ends = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{name} {end:.12g}" for name, end in ends.items() if end is not None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filled:
    """What a text may be that names something: not empty and without NUL, which no file name has."""

    line: bool = False
    """Of printable characters alone."""
    most: int | None = None
    """So many bytes."""

    def holds(self, value: str) -> bool:
        return (
            bool(value.strip())
            and "\0" not in value
            and (value.isprintable() or not self.line)
            and (self.most is None or len(value.encode(errors="replace")) <= self.most)
        )

    def __str__(self) -> str:
        what = "one line of text" if self.line else "text without NUL"
        return f"{what}, not empty" + ("" if self.most is None else f", of at most {self.most} bytes")


# What settings may be: named here once, so that a recipe is refused for all of them together.
Count = Annotated[int, Bound(least=0)]
"""A whole number, 0 or more."""
Some = Annotated[int, Bound(least=1)]
"""A whole number, 1 or more."""
Amount = Annotated[float, Bound(least=0)]
"""A finite number, 0 or more."""
Share = Annotated[float, Bound(least=0, below=1)]
"""A number from 0 to below 1."""
Place = Annotated[str, Filled()]
"""A name or path, not empty."""


def require_bounds(config: Any) -> None:
    """Hold a config that was made in Python against the bounds of its fields; for its `__post_init__`."""
    cls: Any = type(config)
    kinds = field_types(cls)
    faults = []
    for name, kind in kinds.items():
        value = getattr(config, name)
        faults += _of_other_kind(kind, value, name) or _out_of_bounds(kind, value, name)
    if faults:
        raise ConfigError("; ".join(faults))


def given(config: Any) -> list[str]:
    """The settings that are not as they are by default."""
    found = []
    for field in dataclasses.fields(config):
        factory = field.default_factory
        default = factory() if factory is not dataclasses.MISSING else field.default
        if default is not dataclasses.MISSING and getattr(config, field.name) != default:
            found.append(field.name)
    return found


def checked(cls: type[T], tree: Any, faults: list[str]) -> T:
    """The config that a tree describes, where no fault was found."""
    return _dataclass(cls, tree, "", faults)


@cache
def field_types(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _dataclass(cls: Any, tree: Any, name: str, faults: list[str]) -> Any:
    if isinstance(tree, cls):
        return tree
    if not isinstance(tree, Mapping):
        faults.append(f"{name or cls.__name__}: {_seen(tree)}; expected settings ({', '.join(field_types(cls))})")
        return None
    known = field_types(cls)
    before = len(faults)
    for key in tree:
        if key not in known:
            full = f"{name}.{key}" if name else str(key)
            faults.append(f"unknown setting `{full}`.{nearest(cls, str(key), name)}")
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        full = f"{name}.{field.name}" if name else field.name
        if field.name in tree:
            values[field.name] = _value(known[field.name], tree[field.name], full, faults)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            faults.append(f"{full}: missing; expected {spelled(known[field.name])}")
    if len(faults) > before:
        return None
    try:
        return cls(**values)
    except ConfigError as error:  # a rule of the dataclass itself
        faults.append(f"{name}: {error}" if name else str(error))
        return None


def nearest(cls: Any, key: str, name: str) -> str:
    known = field_types(cls)
    return did_you_mean(key, known) or f" Known{' in ' + name if name else ''}: {', '.join(known)}."


def _value(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    """`value` as the declared type, or a fault."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        before = len(faults)
        made = _value(arguments[0], value, name, faults)
        faults += _out_of_bounds(kind, made, name) if len(faults) == before else []
        return made
    if origin in (Union, types.UnionType):
        return _one_of(kind, value, name, faults)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, name, faults)
    if origin is Literal:
        if value in arguments and type(value) in {type(argument) for argument in arguments}:
            return value
        hint = did_you_mean(str(value), map(str, arguments))
        quote = " (YAML reads on, off, yes and no as booleans: quote the word)" if isinstance(value, bool) else ""
        faults.append(f"{name}: {_seen(value)}; expected {spelled(kind)}{quote}.{hint}")
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
    options = [option for option in typing.get_args(kind) if option is not type(None)]
    # an exact type first: 1 in `float | int` stays an int
    for option in sorted(options, key=lambda option: _bare(option) is not type(value)):
        found: list[str] = []
        result = _value(option, value, name, found)
        if not found:
            return result
    faults += found if len(options) == 1 else [f"{name}: {_seen(value)}; expected {spelled(kind)}"]
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


def _of_other_kind(kind: Any, value: Any, name: str) -> list[str]:
    """Where one kind of value is meant: a word that is none of the choices, or no number where a bounded one belongs."""
    options = [option for option in _options(kind) if option is not type(None)]
    if len(options) != 1 or (value is None and type(None) in _options(kind)):
        return []
    (option,) = options
    arguments = typing.get_args(option)
    if typing.get_origin(option) is Literal and value not in arguments:
        near = did_you_mean(value, [str(one) for one in arguments]) if isinstance(value, str) else ""
        return [f"{name} is {shortened(repr(value))}; expected {spelled(option)}{near and '.' + near}"]
    if typing.get_origin(option) is Annotated and any(isinstance(extra, Bound) for extra in arguments[1:]):
        right = numbers.Integral if arguments[0] is int else numbers.Real
        if arguments[0] in (int, float) and (isinstance(value, bool) or not isinstance(value, right)):
            return [f"{name} is {shortened(repr(value))}; expected {spelled(option)}"]
    return []


def _options(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (Union, types.UnionType) else (kind,)


def _out_of_bounds(kind: Any, value: Any, name: str) -> list[str]:
    """Every number in a value that lies outside of the bound beside it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated and isinstance(value, (int, float, str)):
        bounds = [extra for extra in arguments[1:] if isinstance(extra, Filled if isinstance(value, str) else Bound)]
        return [
            f"{name} is {shortened(repr(value))}; expected {bound}"
            for bound in bounds
            if not bound.holds(value)  # type: ignore[arg-type]
        ]
    if origin in (Union, types.UnionType):
        return [fault for option in arguments for fault in _out_of_bounds(option, value, name)]
    if origin is tuple and isinstance(value, tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        pairs = enumerate(zip(kinds, value, strict=False))
        return [fault for place, (k, v) in pairs for fault in _out_of_bounds(k, v, f"{name}.{place}")]
    return []


def _scalar(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    if kind is Any:
        return value
    expected = spelled(kind)
    if kind is float:
        number = _as_float(value)
        if number is not None and math.isfinite(number):
            return number
        expected = "a finite number" if number is not None else expected
    elif kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    elif kind is int:
        whole = _as_int(value)
        if whole is not None and abs(whole) < _WORD:
            return whole
        expected = "an integer of at most 63 bits" if whole is not None else expected
    elif isinstance(kind, type) and isinstance(value, kind):
        if not isinstance(value, str) or _is_text(value):
            return value
        expected = "text without halves of characters (bytes that are not UTF-8)"
    faults.append(f"{name}: {_seen(value)}; expected {expected}")
    return None


def _as_float(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)  # YAML takes `1e-4` for a word
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def _as_int(value: Any) -> int | None:
    """Whole numbers, also as 1e3 and 5.0, but no truth value and no other word."""
    if isinstance(value, int):
        return None if isinstance(value, bool) else value
    number = _as_float(value) if isinstance(value, float) or "e" in str(value).lower() else None
    if number is None or not (math.isinf(number) or number.is_integer()):
        return None
    return _WORD if math.isinf(number) else int(number)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _seen(value: Any) -> str:
    return "nothing (null)" if value is None else f"{type(value).__name__} {shortened(repr(value))}"


def spelled(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(spelled(argument) for argument in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if kind is type(None):
        return "null"
    if origin is Annotated:
        return f"{spelled(arguments[0])}, {', '.join(map(str, arguments[1:]))}"
    if origin is not None:
        return str(kind).replace("typing.", "")
    return {float: "a number", int: "an integer", str: "text", bool: "true or false"}.get(kind, kind.__name__)


def options_of(kind: Any) -> list[Any]:
    """The types that a value may have, None and bounds apart."""
    if typing.get_origin(kind) in (Union, types.UnionType):
        return [_bare(argument) for argument in typing.get_args(kind) if argument is not type(None)]
    return [_bare(kind)]


def _bare(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
