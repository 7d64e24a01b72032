"""Models that read boxes and pictures: the same answers as every field asked alone, without a cache, in every manner."""

from __future__ import annotations

import pytest

from tests.layout.made import document, model, picture
from vertebra.decode.call import generate
from vertebra.documents.asking import DocumentReader, places_of
from vertebra.documents.extract import ask, extract
from vertebra.documents.grammar import grammar_of
from vertebra.documents.schema import fields_of
from vertebra.documents.settings import ExtractSettings

FIELDS = {"total": "number", "shop": "text", "date": "date"}


@pytest.mark.parametrize(
    ("manner", "patches"),
    [("doclaylm", True), ("doclaylm", False), ("laytext", False), ("added", False), ("text", False)],
)
def test_every_manner(manner, patches):
    own, given = model("tiny-llama2", manner, patches=patches), document(3, pages=2)
    images = {1: picture(1), 2: picture(2)} if patches else {}
    found = extract(own, given, FIELDS, images=images, max_new_tokens=8)
    reader = DocumentReader(model=own, settings=ExtractSettings())
    assert not reader.quoted(fields_of(FIELDS)[0])
    (lines,) = reader.windows(given, ["?"], 8, images)
    texts = places_of(lines, given).texts
    for field in fields_of(FIELDS):
        row = reader.row(lines, reader.question(field), images)
        batch = own.collate([row.sequence], [own.prepare(row.items) or None], side="left")
        grammar = grammar_of(field, texts, quoted=False, absent=reader.record.absent)
        alone = generate(own, batch, use_cache=False, constraint=grammar, max_new_tokens=8)
        if alone.stop_reason[0] in ("eos", "constraint"):
            reply = alone.text[0].strip()
            assert found[field.name].text == (None if reply == reader.record.absent else reply)
        for place in found[field.name].places:
            stands = " ".join(given.page(place.page).lines[number].text for number in place.lines)
            assert found[field.name].text in stands


def test_windows_with_boxes():
    """A document that is cut: whole lines with their boxes in every window, one result."""
    own, given = model("tiny-llama2", "doclaylm"), document(5, pages=4, lines=9)
    found = extract(own, given, {**FIELDS, "items": ["text"]}, window=90, max_new_tokens=6, max_list_tokens=12)
    assert found.windows > 3
    for _, leaf in found.leaves():
        assert leaf.text is None or leaf.places
    asked = ask(own, given, ["Where is it?", "</s>?"], window=90, max_new_tokens=6)
    assert list(asked.fields) == ["Where is it?", "</s>?"]
