"""`extract`: as the slow twin that asks every field alone, without a cache; values stand on the page; nothing is lost."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import cache

import pytest
import torch

import vertebra
from vertebra.decode.call import generate
from vertebra.documents.asking import UNTRAINED, DocumentReader, places_of
from vertebra.documents.extract import document_of, extract
from vertebra.documents.grammar import grammar_of
from vertebra.documents.schema import fields_of
from vertebra.documents.settings import ExtractSettings
from vertebra.errors import ConfigError, DataError, TooLongError, UnknownNameError
from vertebra.interop.load import load
from vertebra.layout.record import PAGE
from vertebra.page import Box, Document, Line, Page

WORDS = [
    "TOTAL",
    "CASH",
    "RM9.50",
    "12.00",
    "25/12/2018",
    "Tea",
    "Rice",
    "No.",
    "17",
    "(6%)",
    'x "y"',
    "<|im_end|>",
    "</s>",
]
SCHEMA = {
    "type": "object",
    "properties": {
        "total": {"type": "number"},
        "date": {"type": "string", "format": "date"},
        "shop": {"type": "string", "x-across": True},
        "<|im_end|></s>": {"type": "string"},
        "paid": {"enum": ["cash", "card"]},
        "note": {"type": "string", "x-free": True},
        "seller": {"type": "object", "properties": {"</s>": {"type": "string"}, "id": {"type": "integer"}}},
        "items": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
    },
    "required": ["total"],
}


@cache
def model(name: str = "tiny-smollm2"):
    return load(name, weights=True, inference_mode=True)


def page_of(seed: int, number: int = 1, count: int = 5) -> Page:
    chance = random.Random(seed)
    lines = [
        Line(" ".join(chance.choice(WORDS) for _ in range(chance.randint(1, 4))), Box(0, 10 * n, 80, 10 * n + 9))
        for n in range(count)
    ]
    return Page.of(lines, size=(100, 10 * count), number=number)


HOW = {"max_new_tokens": 10, "max_list_tokens": 40}


@pytest.mark.parametrize("seed", range(4))
def test_as_every_field_asked_alone(seed):
    """Shared prefix, side by side, with a cache, against one full run a field without any."""
    page = page_of(seed)
    result = extract(model(), page, SCHEMA, window=300, **HOW)
    reader = DocumentReader(model=model(), settings=ExtractSettings(window=300, **HOW))
    (lines,) = reader.windows(Document((page,)), [], 0, {})
    texts = places_of(lines, Document((page,))).texts
    for field in fields_of(SCHEMA):
        row = reader.row(lines, reader.question(field))
        alone = generate(
            model(), [row.sequence], use_cache=False, constraint=grammar_of(field, texts), output_logits=True,
            max_new_tokens=40 if field.nested else 10,
        )  # fmt: skip
        found = result[field.name]
        if field.nested or not found.text:
            continue
        reply = json.loads(alone.text[0]) if alone.stop_reason[0] == "constraint" else None
        assert found.text == (str(reply) if reply is not None else found.text)
        if reply is not None:
            logs = [
                float(step[0].log_softmax(-1)[token]) for step, token in zip(alone.logits, alone.tokens[0], strict=True)
            ]
            # the blank before the answer is no part of it
            least, most = sum(logs), sum(logs[1:])
            assert least - 1e-3 <= torch.tensor(found.confidence).log() <= most + 1e-3


def test_every_value_stands_on_the_page():
    """Whatever a model says: copied texts stand where they are said to stand, letter by letter."""
    copied = 0
    for name in ("tiny-smollm2", "tiny-llama2", "tiny-qwen2.5"):
        pages = Document((page_of(5), page_of(6, 2)))
        result = extract(model(name), pages, SCHEMA, **HOW)
        assert list(result.fields) == list(SCHEMA["properties"])
        for path, leaf in result.leaves():
            if leaf.text is None or path in ("note", "paid"):
                continue
            copied += 1
            assert leaf.places, path
            for place in leaf.places:
                stands = " ".join(pages.page(place.page).lines[number].text for number in place.lines)
                assert leaf.text in stands, path
                assert place.boxes == tuple(pages.page(place.page).lines[number].box for number in place.lines)
            assert 0 <= leaf.confidence <= 1
        plain = json.loads(result.to_json())
        assert {"value", "text", "page", "boxes", "lines", "confidence"} <= set(plain["fields"]["total"])
        assert json.loads(str(result)) == json.loads(json.dumps(result.values))
    assert copied >= 3


def test_windows_are_one_result():
    """A document that is cut: every window is asked, and the surest value counts."""
    document = Document(tuple(page_of(seed, seed + 1) for seed in range(4)), "four")
    whole = extract(model(), document, {"total": "number", "items": ["text"]}, **HOW)
    assert whole.windows == 1
    cut = extract(model(), document, {"total": "number", "items": ["text"]}, window=60, overlap=1, **HOW)
    assert cut.windows > 4
    assert cut["total"].text is not None
    reader = DocumentReader(model=model(), settings=ExtractSettings(window=60, overlap=1))
    best = 0.0
    for lines in reader.windows(document, [], 0, {}):
        parts = []
        for page in document:
            here = tuple(page.lines[line.number] for line in lines if line.page == page.number)
            parts += [Page(lines=here, size=page.size, number=page.number)] if here else []
        own = Document(tuple(parts))
        alone = extract(model(), own, {"total": "number"}, **HOW)
        if alone["total"].value is not None:
            best = max(best, alone["total"].confidence)
    assert cut["total"].confidence == pytest.approx(best, rel=1e-3)


def test_a_rule_for_a_list_holds_for_the_document_and_not_for_a_window():
    """The last window may have fewer lines than the list needs: nothing is lost, and what is broken is listed once."""
    amounts = {"type": "array", "minItems": 3, "items": {"type": "string"}}
    schema = {
        "type": "object",
        "properties": {"amounts": amounts, "in": {"type": "object", "properties": {"a": amounts}}},
    }
    document = Document((page_of(1, 1, 8), page_of(2, 2, 1)))
    result = extract(model(), document, schema, window=60, overlap=0, **HOW)
    assert result.windows > 1
    for path, items in (("amounts", result["amounts"].value), ("in.a", (result["in"].value or {}).get("a"))):
        broken = [error for error in result.errors if error.startswith(f"`{path}`") and "fewer than 3 items" in error]
        assert len(broken) == (items is not None and len(items) < 3)
    lines = ["Thank you", "Come again"]
    (field,) = fields_of({"type": "object", "properties": {"amounts": amounts}})
    assert grammar_of(field, lines, whole=False).source == grammar_of(replace(field, rules={}), lines).source
    with pytest.raises(ConfigError, match="cannot be met: it needs 3 items"):
        grammar_of(field, lines)


def test_a_budget_that_ends_keeps_what_was_answered():
    result = extract(
        model(), page_of(3), {"shop": "text", "items": [{"name": "text"}]}, max_new_tokens=1, max_list_tokens=9
    )
    assert not result.complete
    assert sum("the answer ended after" in error for error in result.errors) >= 1
    for _, leaf in result.leaves():
        assert leaf.text is None or leaf.places
    late = extract(model(), Document(tuple(page_of(n, n + 1) for n in range(3))), SCHEMA, seconds=1e-9, **HOW)
    assert not late.complete
    assert "were over" in late.errors[0]
    assert set(late.fields) == set(SCHEMA["properties"])
    assert any("`total` is required" in error for error in late.errors)


def test_pages_in_a_list():
    """They keep their numbers; where two are alike, they are numbered in their order: places lead to the right page."""
    long, short = page_of(1, count=5), page_of(2, count=2)
    for pages in ([long, short], [short, long], iter([short, long]), (page_of(1, 4), page_of(2, 9))):
        document = extract(model(), pages, {"total": "number"}, **HOW).document
        (lines,) = DocumentReader(model=model(), settings=ExtractSettings(window=300)).windows(document, [], 0, {})
        places = places_of(lines, document)
        for page in document:
            for number, line in enumerate(page.lines):
                assert (page.number, (number,), (line.box,)) in [
                    (place.page, place.lines, place.boxes) for place in places.of(line.text)
                ]
    assert [page.number for page in document_of([long, short])] == [1, 2]
    assert [page.number for page in document_of((page_of(1, 4), page_of(2, 9)))] == [4, 9]


@pytest.mark.parametrize("given", [5, None, ["Total 5"], [page_of(1), 7], {"pages": []}, b"x", object(), [None]])
def test_what_is_no_document(given):
    with pytest.raises(DataError, match=r"a document is a file, a `Document`, a `Page`, or a list of pages; found a"):
        extract(model(), given, {"total": "number"})


def test_mistakes_come_before_a_model_loads():
    for document, schema, why in (
        (page_of(1), {"properties": {"a": {"multipleOf": 0}}}, "multipleOf"),
        ([page_of(1), 7], {"total": "number"}, "found a list with a int in it"),
    ):
        with pytest.raises((ConfigError, DataError), match=why):
            vertebra.extract("a-model-that-is-nowhere", document, schema)


def test_nothing_to_read():
    for document in (Page(size=(10, 10)), Page.of([Line(" ", Box(0, 0, 1, 1))], size=(10, 10)), Document(())):
        result = extract(model(), document, SCHEMA)
        assert result["total"].value is None
        assert result["items"].value == []
        assert result.errors[0] == "the document has no text: nothing was asked"
    bare = Page(lines=(Line("Total 9.50"), Line("מחיר 5.00"), Line("合計900円")), size=(10, 10))
    result = extract(model(), bare, {"total": "number"}, **HOW)
    assert result["total"].boxes == ()
    assert result["total"].lines
    assert result["total"].value in (9.5, 5.0, 900)


def test_mistakes():
    page = page_of(1)
    with pytest.raises(UnknownNameError, match="Did you mean `total`"):
        extract(model(), page, {"total": "number"}, across=("totl",))
    with pytest.raises(ConfigError, match="expected names of fields"):
        extract(model(), page, {"total": "number"}, free="total")
    with pytest.raises(ConfigError, match=r"max_new_tokens is 0.*seconds is -1"):
        extract(model(), page, {"total": "number"}, max_new_tokens=0, seconds=-1)
    with pytest.raises(TypeError, match="windw"):
        extract(model(), page, {"total": "number"}, windw=3)
    with pytest.raises(TooLongError, match="Lines are never cut"):
        extract(model(), page, {"total": "number"}, window=2)
    with pytest.raises(TooLongError, match=r"leaves -?[0-9]+ for the page"):
        extract(model(), page, {"total": "number"}, max_new_tokens=10**6)
    with pytest.raises(ConfigError, match="cannot be met: it needs 99 items"):
        extract(model(), page, {"type": "object", "properties": {"a": {"type": "array", "items": {}, "minItems": 99}}})
    with pytest.raises(DataError, match="is no file"):
        extract(model(), "nowhere.pdf", {"total": "number"})


def test_a_model_that_was_trained_on_pages_answers_bare():
    """Its record decides the question, the word for nothing and the form."""
    trained = load("tiny-llama2", weights=True, inference_mode=True)
    record = {**UNTRAINED.to_json(), "absent": "none", "field": "{field}?", "template": "{question}"}
    trained.record[PAGE] = record
    reader = DocumentReader(model=trained, settings=ExtractSettings())
    (field,) = fields_of({"total": "number"})
    assert reader.question(field) == "total?"
    assert not reader.quoted(field)
    result = extract(trained, page_of(2), {"total": "number", "shop": "text"}, **HOW)
    for _, leaf in result.leaves():
        assert leaf.text is None or leaf.places
    trained.record["confidence"] = {"kind": "isotonic", "steps": [[0.0, 0.25]]}
    again = extract(trained, page_of(2), {"total": "number"}, **HOW)
    assert again["total"].confidence == 0.25
    assert again["total"].text == result["total"].text
    left_out = extract(trained, page_of(2), {"total": "number"}, least=0.5, **HOW)
    if again["total"].text is not None:
        assert left_out["total"].value is None
        assert "left out" in left_out.errors[0]


def test_free_answers_of_a_model_that_was_trained_on_pages():
    """As it writes them by itself: no quotes, nothing copied, no place."""
    trained = load("tiny-llama2", weights=True, inference_mode=True)
    trained.record[PAGE] = UNTRAINED.to_json()
    (field,) = fields_of({"total": "text"})
    for seed in range(3):
        page = page_of(seed)
        result = extract(trained, page, {"total": "text"}, free=("total",), max_new_tokens=6)
        reader = DocumentReader(model=trained, settings=ExtractSettings())
        (lines,) = reader.windows(Document((page,)), [reader.question(field)], 6, {})
        alone = generate(trained, reader.row(lines, reader.question(field)).sequence, max_new_tokens=6)
        assert result["total"].text == alone.text[0].strip()
        assert not result["total"].places


def test_a_pydantic_class():
    pydantic = pytest.importorskip("pydantic")

    class Receipt(pydantic.BaseModel):
        total: float | None = None

        @pydantic.field_validator("total")
        @classmethod
        def broken(cls, value):
            if value is not None and value > 10**9:
                raise RuntimeError("never")
            return value

    class Strict(pydantic.BaseModel):
        total: float = pydantic.Field(gt=10**9)

    result = extract(model(), page_of(2), Receipt, **HOW)
    assert isinstance(result.instance, Receipt)
    assert result.instance.total == result.values["total"]
    refused = extract(model(), page_of(2), Strict, **HOW)
    assert refused.instance is None
    assert any("`total`" in error for error in refused.errors)
    assert refused["total"].text == result["total"].text
