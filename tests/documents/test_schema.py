"""Schemas: what pydantic, JSON schema and the short form say becomes fields; what cannot be met is refused with its reason."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import date
from decimal import Decimal
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.documents.field import Field
from vertebra.documents.forms import SHORT
from vertebra.documents.grammar import grammar_of
from vertebra.documents.keywords import KEYWORDS
from vertebra.documents.schema import fields_of
from vertebra.documents.values import faults_of
from vertebra.errors import ConfigError, DataError, UnknownNameError

pydantic = pytest.importorskip("pydantic")


def of(**properties):
    return {"type": "object", "properties": properties}


def test_a_pydantic_class():
    class Item(pydantic.BaseModel):
        name: str
        price: Decimal | None = None

    class Receipt(pydantic.BaseModel):
        total: Decimal = pydantic.Field(description="to be paid", ge=0)
        when: date | None = None
        paid: bool = False
        how: Literal["cash", "card"] | None = None
        items: list[Item] = pydantic.Field(default_factory=list)

    total, when, paid, how, items = fields_of(Receipt)
    assert (total.kind, total.required, total.asked) == ("number", True, "total (to be paid)")
    assert (when.kind, when.required, paid.kind) == ("date", False, "boolean")
    assert (how.kind, how.choices) == ("choice", ("cash", "card"))
    assert items.kind == "list"
    assert [(one.name, one.kind, one.required) for one in items.item.fields] == [
        ("name", "text", True),
        ("price", "number", False),
    ]


def test_a_json_schema(tmp_path):
    schema = of(
        a={"type": ["string", "null"], "pattern": "^x"},
        b={"allOf": [{"$ref": "#/$defs/N"}, {"minimum": 2}]},
        c={"const": "one"},
        d={"type": "string", "format": "date-time", "x-across": True},
        e={},
    ) | {"required": ["a"], "$defs": {"N": {"type": "integer", "minimum": 1, "maximum": 9}}}
    (tmp_path / "s.json").write_text(json.dumps(schema))
    for source in (schema, tmp_path / "s.json", str(tmp_path / "s.json")):
        a, b, c, d, e = fields_of(source)
        assert (a.kind, a.required, a.rules) == ("text", True, {"pattern": "^x"})
        assert (b.kind, b.rules) == ("integer", {"minimum": 2, "maximum": 9})
        assert (c.choices, d.kind, d.across, e.kind) == (("one",), "datetime", True, "text")


def test_the_short_form():
    total, items, seller = fields_of({"total": "amount", "items": [{"name": "text"}], "seller": {"name": "text"}})
    assert (total.kind, items.item.kind, items.item.fields[0].name) == ("number", "record", "name")
    assert (seller.kind, seller.fields[0].name) == ("record", "name")
    assert [one.name for one in fields_of(["date", "total"])] == ["date", "total"]
    mixed = fields_of({"total": {"type": "number", "minimum": 0}})[0]
    assert (mixed.kind, mixed.rules) == ("number", {"minimum": 0})


RECURSIVE = {
    "$defs": {
        "A": {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}},
        "B": {"type": "array", "items": {"$ref": "#/$defs/A"}},
    }
}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (of(a={"$ref": "#/$defs/A"}) | RECURSIVE, r"recursive \(A → B → A\)"),
        (of(a={"$ref": "#"}), "recursive"),
        (of(a={"type": "integer", "minimum": 3, "maximum": 1}), "cannot be met: minimum is 3 and maximum is 1"),
        (of(a={"allOf": [{"type": "string"}, {"type": "integer"}]}), "cannot be met: `allOf`"),
        (of(a={"enum": []}), "may have no value"),
        (of(a={"enum": [None]}), "may have no value"),
        (of(a={"enum": [{}]}), "expected texts, numbers"),
        (of(a={"type": "null"}), "only be null"),
        (of(a={"anyOf": [{"type": "null"}]}), "only be null"),
        (of(a={"anyOf": [{"type": "string"}, {"type": "object", "properties": {"b": {}}}]}), "one of several things"),
        (of(a=False), "is `false`"),
        (of(a=3), "expected a schema"),
        (of(a={"type": "string", "pattern": "("}), "pattern"),
        (of(a={"type": "array"}), "without `items`"),
        (of(a={"type": "array", "items": {"type": "array", "items": {}}}), "list of lists"),
        (of(a={"type": "object", "additionalProperties": {"type": "string"}}), "free keys"),
        (of(a={"$ref": "#/$defs/Nowhere"}), "not in the schema"),
        (of(a={"$ref": "http://elsewhere/x"}), "only references inside"),
        (of(a={}) | {"required": ["aa"]}, "requires `aa`.*Did you mean `a`"),
        ({"type": "object"}, "names no field"),
        ({"type": "object", "properties": {}}, "names no field"),
        ({}, "names no field"),
        ([], "names of fields"),
        (["a", "a"], "none twice"),
        ({"a": []}, "expected a kind"),
        (7, "found a int"),
        (
            of(a={"type": "object", "required": True, "properties": {"b": {}}}),
            "field `a`.*`required` is True; expected a list",
        ),
        (of(a=of(b={"enum": 5})), "field `a.b` .*`enum` is 5; expected a list"),
        (
            of(a={"type": "array", "items": of(b={"anyOf": None})}),
            "field `a.b` .*`anyOf` is None; expected a list of one",
        ),
        (of(a={"type": {"x": 1}}), "`type` is {'x': 1}; expected the name of a type"),
        (of(a={"type": ["number", "strin"]}), "Did you mean `string`"),
        (of(a={"minimum": "5", "maximum": 7}), "`minimum` is '5'; expected a number"),
        (of(a={"minimum": "5", "pattern": 5}), "`minimum` is '5'.*; `pattern` is 5; expected a text"),
        (of(a={"exclusiveMinimum": True}), "`exclusiveMinimum` is True; expected a number"),
        (of(a={"minItems": "x"}), "`minItems` is 'x'; expected a whole number from 0 on"),
        (of(a={"maxLength": 1.5}), "`maxLength` is 1.5; expected a whole number"),
        (of(a={"multipleOf": 0}), "`multipleOf` is 0; expected a number above 0"),
        (of(a={"maximum": 10**400}), "expected a number"),
        (of(a={"enum": [10**5000]}), "expected texts, numbers"),
        (of(a={"enum": [float("nan")]}), "expected texts, numbers"),
        (of(a={"x-free": "false"}), "`x-free` is 'false'; expected true or false"),
        (of(a={"pattern": "a{99999999999999999999}"}), "pattern"),
        (of(a={"pattern": "(" * 3000 + ")" * 3000}), "pattern"),
        (of(a={"allOf": [{"enum": ["x"]}, {"enum": ["y"]}]}), "may have no value"),
        ({"properties": {1: {}}}, "`properties` is {1: {}}; expected an object with named entries"),
        ({"a": {"type": "text"}}, "neither clearly.*all keywords of a JSON schema.*`type` is 'text'"),
        ({"a": {"type": "string", "plate": "txet"}}, "`plate` is no keyword of a JSON schema, and 'txet'.* no kind"),
        ({"a": {"type": "number", "unit": "EUR"}}, "neither clearly a JSON schema nor"),
        ({"properties": {"area": "text"}, "plate": "text"}, "the schema is neither clearly.*`plate` is no keyword"),
    ],
)
def test_what_cannot_be_met(schema, why):
    with pytest.raises(ConfigError, match=f"(?s){why}"):
        fields_of(schema)


def nested(levels, how):
    inner = {"type": "string"}
    for _ in range(levels):
        inner = {"short": {"a": inner}, "list": [inner], "of": of(a=inner), "items": {"type": "array", "items": inner},
                 "enum": {"enum": [inner]}, "all": {"allOf": [inner]}, "any": {"anyOf": [inner]}}[how]  # fmt: skip
    return inner


@pytest.mark.parametrize("how", ["short", "list", "of", "enum", "all", "any", "items"])
def test_levels_without_end(how):
    with pytest.raises(ConfigError, match="nested deeper than 100 levels"):
        fields_of({"a": nested(3000, how)})
    with pytest.raises(ConfigError, match="nested deeper than 100 levels"):
        fields_of(of(a=nested(3000, how)))


def test_references_without_end():
    """One behind the other, and each twice the next: small files of what would be endless."""
    chain = {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(3000)} | {"3000": {}}
    with pytest.raises(ConfigError, match="references included"):
        fields_of(of(a={"$ref": "#/$defs/0"}) | {"$defs": chain})
    for twice in (lambda one: of(a=one, b=one), lambda one: {"allOf": [one, one]}, lambda one: {"anyOf": [one, one]}):
        doubled = {str(n): twice({"$ref": f"#/$defs/{n + 1}"}) for n in range(40)} | {"40": {"type": "string"}}
        with pytest.raises(ConfigError, match="more than 20,000 parts"):
            fields_of(of(a={"$ref": "#/$defs/0"}) | {"$defs": doubled})
    circle: dict = {"a": {}}
    circle["a"]["b"] = circle
    with pytest.raises(ConfigError, match="nested deeper"):
        fields_of(circle)


PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
AGAIN = {"$ref": "#/$defs/Person"}


@pytest.mark.parametrize(
    "worker",
    [
        {"allOf": [AGAIN], "properties": {"manager": AGAIN}},
        {**AGAIN, "properties": {"manager": AGAIN}},
        {"allOf": [AGAIN, {"properties": {"manager": AGAIN}}]},
        {"allOf": [{"allOf": [AGAIN]}, {"properties": {"manager": AGAIN}, "required": []}]},
        {"anyOf": [AGAIN, {"type": "null"}], "properties": {"name": AGAIN, "manager": AGAIN}},
    ],
)
def test_what_stands_beside_a_reference_is_not_inside_of_it(worker):
    (read,) = fields_of(of(worker=worker) | {"$defs": {"Person": PERSON}})
    assert {one.name for one in read.fields} == {"name", "manager"}
    manager = next(one for one in read.fields if one.name == "manager")
    assert [(one.name, one.kind, one.required) for one in manager.fields] == [("name", "text", True)]
    with pytest.raises(ConfigError, match="recursive"):  # a person with a manager, who is one
        fields_of(of(worker=AGAIN) | {"$defs": {"Person": {"allOf": [PERSON], "properties": {"manager": AGAIN}}}})
    with pytest.raises(ConfigError, match="recursive"):
        fields_of(of(worker=worker) | {"$defs": {"Person": of(name={}, boss={"type": "array", "items": AGAIN})}})


def test_allof_of_what_we_do_not_read():
    (read,) = fields_of(
        of(a={"allOf": [{"default": 1, "minimum": 1}, {"default": 2, "enum": [3, 4]}, {"enum": [4, 5]}]})
    )
    assert (read.choices, read.rules) == ((4,), {"minimum": 1})


def test_a_dict_of_fields_is_no_schema():
    """Whatever its fields are called: none of them may be lost."""
    for name in ("type", "enum", "properties", "items", "title", "format", "description", "required", "pattern"):
        for kind in ("string", "text", "number", "date"):
            (vehicle,) = fields_of({"vehicle": {name: kind, "plate": "text"}})
            assert [(one.name, one.kind) for one in vehicle.fields] == [(name, SHORT[kind]), ("plate", "text")]
            if name != "properties":
                assert [one.name for one in fields_of({name: kind, "plate": "text"})] == [name, "plate"]
    (mixed,) = fields_of({"a": {"type": "string", "format": "date", "description": "text", "x-own": 3}})
    assert (mixed.kind, mixed.description) == ("date", "text")
    (unknown,) = fields_of({"type": "object", "properties": {"a": {"type": "string", "unit": "EUR"}}, "strict": True})
    assert unknown.kind == "text"


NAMES = st.sampled_from([*KEYWORDS, "a", "title", "additionalProperties", "x-own"])
SMALL: st.SearchStrategy = st.sampled_from(
    [None, True, False, 0, 1, -1, 2.5, 10**400, float("inf"), "", "x", "5", "(", "#", "#/$defs/A", "string", "object", "array",
     "text", "null", [], {}, (), b"x", {1: 2}],
)  # fmt: skip
VALUES = st.recursive(
    SMALL, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=8
)
SOUND = st.sampled_from([{"type": "string"}, {"type": "integer", "minimum": 2}, {"$ref": "#/$defs/A"}, {"enum": ["x", 1]},
                         {"type": "array", "items": {"type": "number"}}, of(b={"type": "string"}), True])  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(
    sound=SOUND,
    wrong=st.dictionaries(NAMES, VALUES, max_size=3),
    defined=st.one_of(SOUND, VALUES),
    where=st.integers(0, 5),
)
def test_any_schema_is_read_or_refused_in_words(sound, wrong, defined, where):
    """Every keyword with values of any type, wherever it may stand."""
    odd = {**sound, **wrong} if isinstance(sound, dict) else wrong
    places = [
        odd, of(a=odd), {"a": odd}, of(a=of(b=odd)), of(a={"type": "array", "items": odd}), of(a={"allOf": [sound, odd]}),
    ]  # fmt: skip
    schema = {**places[where], "$defs": {"A": defined}} if where != 2 else places[where]
    fields: tuple[Field, ...] = ()
    with suppress(ConfigError):
        fields = fields_of(schema)
    for one in fields:
        grammar_of(one, ["Total 9.50", "Tea"], whole=False)
        values: tuple = (3, 2.5, "x", True, [], {})
        for value in values:
            faults_of(one, value)


def test_every_keyword_with_every_kind_of_value():
    """The same without chance."""
    values: tuple = (None, True, 5, -1, 0, 2.5, "x", "5", [], [1], [None], {}, {"x": 1}, [{}], 10**400, {1: {}})
    for keyword in KEYWORDS:
        for value in values:
            for base in (
                {},
                {"type": "string"},
                {"type": "number", "maximum": 7},
                {"type": "array", "items": {}},
                of(b={}),
            ):
                for schema in (
                    of(a={**base, keyword: value}),
                    {**of(a={}), keyword: value},
                    {"a": {**base, keyword: value}},
                ):
                    with suppress(ConfigError):
                        fields_of(schema)


def test_unknown_names_and_files(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean `number`"):
        fields_of({"total": "numbr"})
    with pytest.raises(UnknownNameError, match="Did you mean `string`"):
        fields_of(of(a={"type": "strin"}))
    (tmp_path / "s.json").write_text("{")
    for path in (tmp_path / "s.json", tmp_path / "none.json"):
        with pytest.raises(DataError, match=r"is no JSON|cannot be read"):
            fields_of(path)
