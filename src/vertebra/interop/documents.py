"""`extract` by the name of a model: whatever `load` takes. How values are found is the business of `vertebra.documents`."""

from __future__ import annotations

from typing import Any

from vertebra.documents import extract as extracting
from vertebra.documents.found import Extraction
from vertebra.documents.schema import fields_of
from vertebra.documents.settings import ExtractSettings
from vertebra.interop.verbs import named


def extract(
    model: Any, document: Any, schema: Any, *, settings: ExtractSettings | None = None, **options: Any
) -> Extraction:
    """The values that a schema asks for, each copied from the document, with its places on the page and a confidence.

    `model`: a `Model` or a name. `document`: a file (a PDF, a picture, pages in any format), a `Document`, a `Page`, a list.
    `schema`: a pydantic class, a JSON schema or its file, or `{"total": "number", "items": [{"name": "text"}]}`.
    `options`: those of `vertebra.documents.ExtractSettings`, and `images={1: picture}` for models that look.
    """
    given = extracting.document_of(document)
    fields_of(schema)  # what is wrong with either comes before a model loads
    return extracting.extract(named(model), given, schema, settings=settings, **options)
