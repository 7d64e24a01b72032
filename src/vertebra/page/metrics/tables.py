"""Tables, as HTML: TEDS, and cell F1 by (row, column, text), which has no rival definition and says what is wrong.

teds       1 - tree distance / nodes of the larger tree; cells that differ cost their edit distance over tags and letters,
           cells of other spans 1. `structure` looks at tags and spans alone (TEDS-S). As table-recognition-metric counts it
cell_f1    twice the cells that are right, over cells there and cells given
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import Any

from vertebra.page.metrics.answers import plain
from vertebra.page.metrics.distance import Node, levenshtein, tree_distance

Cell = tuple[int, int, str]
_CLOSED_BY = {
    "td": {"td", "th", "tr", "tbody", "thead", "tfoot", "table"},
    "th": {"td", "th", "tr", "tbody", "thead", "tfoot", "table"},
    "tr": {"tr", "tbody", "thead", "tfoot", "table"},
    "thead": {"tbody", "tfoot", "table"},
    "tbody": {"tbody", "tfoot", "table"},
    "tfoot": {"tbody", "table"},
}
"""What ends an element that nobody closed."""
_EMPTY = {"br", "img", "hr", "input", "wbr"}


def cell_f1(gold: Iterable[Cell], answer: Iterable[Cell]) -> float:
    """Cells of (row, column, text), texts without case and double blanks; 1 for two empty tables."""
    ours, theirs = (Counter((row, column, plain(text)) for row, column, text in cells) for cells in (gold, answer))
    total = sum(ours.values()) + sum(theirs.values())
    return 2 * sum((ours & theirs).values()) / total if total else 1.0


def teds(gold: str, answer: str, *, structure: bool = False) -> float:
    """Of two tables in HTML, 0..1; 0 where either holds none."""
    ours, theirs = (_tree(text, structure) for text in (gold, answer))
    if ours is None or theirs is None:
        return 0.0
    return 1.0 - tree_distance(theirs, ours, _rename) / max(len(ours), len(theirs))


def table_cells(html: str) -> list[Cell]:
    """(row, column, text) of every cell of a table in HTML; a cell of several rows or columns stands where it begins."""
    table = _parsed(html)
    cells: list[Cell] = []
    taken: set[tuple[int, int]] = set()
    for row, one in enumerate([] if table is None else _rows(table)):
        column = 0
        for cell in one.children:
            if cell.tag not in ("td", "th"):
                continue
            while (row, column) in taken:
                column += 1
            high, wide = cell.span("rowspan"), cell.span("colspan")
            taken |= {(row + down, column + right) for down in range(high) for right in range(wide)}
            cells.append((row, column, " ".join(cell.text().split())))
            column += wide
    return cells


class _Element:
    def __init__(self, tag: str, given: dict[str, str | None]) -> None:
        self.tag, self.given = tag, given
        self.inside: list[_Element | str] = []

    @property
    def children(self) -> list[_Element]:
        return [one for one in self.inside if isinstance(one, _Element)]

    def span(self, name: str) -> int:
        value = (self.given.get(name) or "1").strip()
        return min(max(int(value), 1), 1000) if value.isdigit() else 1

    def text(self) -> str:
        return "".join(one if isinstance(one, str) else one.text() for one in self.inside)

    def tokens(self) -> Iterator[str]:
        """Letters and tags of what is inside."""
        for one in self.inside:
            if isinstance(one, str):
                yield from one
            else:
                yield f"<{one.tag}>"
                yield from one.tokens()
                yield f"</{one.tag}>"


class _Reader(HTMLParser):
    """Elements, where closing tags may be missing."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = _Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        while len(self.open) > 1 and tag in _CLOSED_BY.get(self.open[-1].tag, ()):
            self.open.pop()
        made = _Element(tag, dict(attrs))
        self.open[-1].inside.append(made)
        if tag not in _EMPTY:
            self.open.append(made)

    def handle_endtag(self, tag: str) -> None:
        if any(one.tag == tag for one in self.open[1:]):
            while self.open.pop().tag != tag:
                pass

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def _parsed(html: str) -> _Element | None:
    """The first table of a text."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    waiting = [reader.root]
    while waiting:
        one = waiting.pop(0)
        if one.tag == "table":
            return one
        waiting = [*one.children, *waiting]
    return None


def _rows(table: _Element) -> Iterator[_Element]:
    for one in table.children:
        if one.tag == "tr":
            yield one
        elif one.tag in ("thead", "tbody", "tfoot"):
            yield from (row for row in one.children if row.tag == "tr")


def _tree(html: str, structure: bool) -> Node | None:
    table = _parsed(html)
    return None if table is None else _node(table, structure)


def _node(one: _Element, structure: bool) -> Node:
    if one.tag == "td":
        tokens = () if structure else tuple(one.tokens())
        return Node((one.tag, one.span("colspan"), one.span("rowspan"), tokens))
    return Node((one.tag, None, None, ()), [_node(child, structure) for child in one.children])


def _rename(one: Any, other: Any) -> float:
    if one[:3] != other[:3]:
        return 1.0
    longest = max(len(one[3]), len(other[3]))
    return levenshtein(one[3], other[3]) / longest if longest else 0.0
