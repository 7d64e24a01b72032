"""Schemas: what pydantic, JSON schema and the short form say becomes fields; what cannot be met is refused with its reason."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Literal

import pytest

from vertebra.documents.schema import fields_of
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
    for given in (schema, tmp_path / "s.json", str(tmp_path / "s.json")):
        a, b, c, d, e = fields_of(given)
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
    ],
)
def test_what_cannot_be_met(schema, why):
    with pytest.raises(ConfigError, match=f"(?s){why}"):
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
