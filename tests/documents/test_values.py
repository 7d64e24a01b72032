"""Answers become values: looked up, normalised, judged; cut ones keep what came through; windows are united."""

from __future__ import annotations

import pytest

from vertebra.documents.extract import merge
from vertebra.documents.field import Field
from vertebra.documents.normalise import WritingHabits
from vertebra.documents.schema import fields_of
from vertebra.documents.values import Values, faults_of, list_faults
from vertebra.page import Box, Line
from vertebra.page.pieces import TextPlaces

LINES = ["Rice 4.50", "Tea 2.00", "Tea 2.00", "Total RM 8.50", "Jalan 5", "81100 Johor"]


def values(lines=LINES, page=1):
    placed = [(page, number, Line(text, Box(0, number, 9, number + 1))) for number, text in enumerate(lines)]
    return Values(TextPlaces(placed), WritingHabits(), absent="none")


def sure(start, end):
    return 0.5


def one(schema, text, *, quoted=True, whole=True, own=None):
    (field,) = fields_of(schema)
    own = own or values()
    return own.of(field, text, sure, quoted=quoted, whole=whole), own.errors


@pytest.mark.parametrize(
    ("rule", "fine", "wrong"),
    [
        ({"multipleOf": 0.1}, (0.3, 10**300, 1234567.8, "x", "7", True), (0.35,)),
        ({"multipleOf": 7}, (7 * 10**400, 14.0), (7 * 10**400 + 1, 15)),
        ({"minItems": 2}, ([1, 2], "a", 5), ([], [1])),
        ({"maxItems": 1}, ([1], "abc", 5), ([1, 2],)),
        ({"uniqueItems": True}, ([1, 2], "aa"), ([1, 1],)),
        ({"minimum": 2**53 + 1}, (2**53 + 1, "a"), (2**53,)),
    ],
)
def test_rules_are_for_their_own_kind_of_value_and_exact(rule, fine, wrong):
    field = Field(name="x", rules=rule)
    assert [faults_of(field, value) for value in fine] == [[]] * len(fine)
    assert [len(faults_of(field, value)) for value in wrong] == [1] * len(wrong)


def test_rules_of_lists_wherever_they_stand():
    least = {"type": "array", "minItems": 2, "items": {"type": "string"}}
    inner = {"type": "object", "properties": {"all": least}}
    (a, b, c) = fields_of(
        {"type": "object", "properties": {"a": least, "b": inner, "c": {"type": "array", "items": inner}}}
    )
    assert list(list_faults(a, ["x"], "a")) == ["`a`: ['x'] has fewer than 2 items"]
    assert list(list_faults(b, {"all": []}, "b")) == ["`b.all`: [] has fewer than 2 items"]
    assert list(list_faults(c, [{"all": ["x", "y"]}, None, {"all": ["x"]}], "c")) == [
        "`c[2].all`: ['x'] has fewer than 2 items"
    ]
    assert [fault for one in (a, b, c) for fault in list_faults(one, None, one.name)] == []


def test_a_value_with_its_place():
    found, errors = one({"total": "number"}, ' "RM 8.50"')
    assert (found.value, found.text, found.page, found.lines, found.confidence) == (8.5, "RM 8.50", 1, (3,), 0.5)
    assert found.boxes == (Box(0, 3, 9, 4),)
    assert errors == []


def test_repeats_list_all_places():
    found, _ = one({"price": "number"}, '"2.00"')
    assert found.ambiguous
    assert [place.lines for place in found.places] == [(1,), (2,)]
    assert found.lines == (1, 2)
    assert [one["lines"] for one in found.to_dict()["places"]] == [[1], [2]]


def test_absent_in_both_forms():
    for text, quoted in ((" null", True), ("none", False), (" none ", False), ("", False)):
        found, _ = one({"total": "number"}, text, quoted=quoted)
        assert (found.value, found.text, found.places) == (None, None, ())
    word, _ = one({"a": "text"}, '"none"', own=values(["none"]))
    assert word.value == "none"  # in quotes a word of the page is never nothing


def test_what_cannot_be_read_is_listed_and_kept():
    found, errors = one({"date": "date"}, '"Total"')
    assert (found.value, found.text, found.lines) == (None, "Total", (3,))
    assert errors == ["`date`: 'Total' holds no date"]
    ruled = {"type": "object", "properties": {"total": {"type": "number", "maximum": 5}}}
    found, errors = one(ruled, '"8.50"')
    assert found.value == 8.5
    assert errors == ["`total`: 8.5 is above 5"]


def test_lists_and_records():
    schema = {"items": [{"name": "text", "price": "number"}]}
    text = '[{"name": "Rice", "price": "4.50"}, {"name": "Tea", "price": null}, {"name": "T'
    found, _ = one(schema, text, whole=False)
    assert found.value == [{"name": "Rice", "price": 4.5}, {"name": "Tea", "price": None}]
    assert [path for path, _ in found.leaves()] == [
        "items[0].name", "items[0].price", "items[1].name", "items[1].price"
    ]  # fmt: skip
    assert one({"seller": {"name": "text"}}, " null")[0].value is None
    assert one({"items": ["text"]} and {"items": [{"name": "text"}]}, "[]")[0].value == []


def test_an_answer_that_was_cut_off():
    """As many whole pieces as stand somewhere."""
    found, _ = one({"total": "text"}, '"Total RM 8.5', whole=False)
    assert (found.text, found.lines) == ("Total RM", (3,))
    assert "cut off" in found.note
    assert one({"total": "text"}, '"Tot', whole=False)[0].value is None
    assert one({"total": "text"}, "Total R", quoted=False, whole=False)[0].text == "Total"


def test_choices_and_free_text():
    schema = {"type": "object", "properties": {"how": {"enum": ["Tea", "coffee", 3]}}}
    found, _ = one(schema, '"Tea"')
    assert (found.value, found.lines) == ("Tea", (1, 2))
    assert one(schema, "3")[0].value == 3
    free = {"type": "object", "properties": {"note": {"type": "string", "x-free": True, "maxLength": 3}}}
    found, errors = one(free, '"a drink"')
    assert (found.value, found.places) == ("a drink", ())
    assert errors == ["`note`: 'a drink' has more than 3 letters"]


def test_over_the_ends_of_lines():
    schema = {"type": "object", "properties": {"address": {"type": "string", "x-across": True}}}
    found, _ = one(schema, '"Jalan 5 81100 Johor"')
    assert found.lines == (4, 5)
    assert len(found.boxes) == 2


def test_windows_become_one():
    (field,) = fields_of({"total": "number"})

    def found(text, confidence, page=1):
        return values(page=page).of(field, text, lambda *_: confidence, quoted=True, whole=True)

    best = merge(field, [found("null", 0.99), found('"4.50"', 0.2), found('"8.50"', 0.6), found("null", 0.9)])
    assert (best.value, best.confidence) == (8.5, 0.6)
    assert merge(field, [found("null", 0.9), found("null", 0.7)]).confidence == 0.7
    repeated = merge(field, [found('"8.50"', 0.6), found('"8.50"', 0.5, page=2)])
    assert [place.page for place in repeated.places] == [1, 2]
    assert merge(field, []).value is None
    (field,) = fields_of({"items": [{"name": "text"}]})
    items = merge(
        field, [found('[{"name": "Rice"}, {"name": "Tea"}]', 0.6), found('[{"name": "Tea"}, {"name": "Total"}]', 0.6)]
    )
    assert [one["name"] for one in items.value] == ["Rice", "Tea", "Total"]
    again = merge(field, [found('[{"name": "Rice"}]', 0.6), found('[{"name": "Rice"}]', 0.6, page=2)])
    assert len(again.value) == 2
    (field,) = fields_of({"seller": {"name": "text", "total": "number"}})
    parts = merge(field, [found('{"name": "Rice", "total": null}', 0.6), found('{"name": null, "total": "8.50"}', 0.6)])
    assert parts.value == {"name": "Rice", "total": 8.5}


@pytest.mark.parametrize(
    ("rules", "value", "count"),
    [({"pattern": "^a"}, "b", 1), ({"minLength": 2, "maxLength": 3}, "a", 1), ({"minimum": 2}, 1, 1),
     ({"exclusiveMinimum": 1, "exclusiveMaximum": 1}, 1, 2), ({"multipleOf": 0.1}, 0.3, 0), ({"multipleOf": 2}, 3, 1),
     ({"minItems": 2}, [1], 1), ({"maxItems": 0, "uniqueItems": True}, [1], 1), ({"uniqueItems": True}, [1, 1], 1),
     ({"minimum": 1}, "text", 0), ({"pattern": "a"}, 3, 0)],
)  # fmt: skip
def test_rules(rules, value, count):
    (field,) = fields_of({"type": "object", "properties": {"a": rules}})
    assert len(faults_of(field, value)) == count
