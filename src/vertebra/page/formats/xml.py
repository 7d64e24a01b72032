"""XML as a tree, safely: no entity is ever expanded and nothing is fetched; names come without their namespace."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from vertebra.errors import DataError

DEEPEST = 200
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def tree(text: str | bytes) -> ElementTree.Element:
    """The root of a document. What a text declares counts no more: it has been decoded; bytes are what they declare."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate("utf-8" if isinstance(text, str) else None, "}")
    parser.buffer_text = True
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise DataError(f"an XML file is nested more than {DEEPEST} deep; no page is")
        builder.start(name.rpartition("}")[2], {key.rpartition("}")[2]: value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name.rpartition("}")[2])

    def refuse(*_: Any) -> Any:
        raise DataError(
            "an XML file has entities of its own, which can blow up or read other files; take its DOCTYPE out"
        )

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.EntityDeclHandler = parser.UnparsedEntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = parser.SkippedEntityHandler = refuse
    parser.Parse(text.encode() if isinstance(text, str) else text, True)
    return builder.close()


def written(root: ElementTree.Element) -> str:
    """The document of a root; a character that XML cannot hold is an error that names it."""
    for element in root.iter():
        for text in (element.text, *element.attrib.values()):
            if text and (found := _ILLEGAL.search(text)):
                raise DataError(
                    f"U+{ord(found[0]):04X} in {text[:40]!r} cannot stand in XML; take such characters out, or write JSON"
                )
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"
