"""A long document as windows that each fit: whole lines with their boxes, never part of one.

What a line costs is asked of the caller (the tokens of its text and its slot, say), so that nothing here knows tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vertebra.errors import ConfigError, TooLongError, shortened
from vertebra.page.page import Document, Line, Page, distinct

L = TypeVar("L")


@dataclass(frozen=True)
class Window:
    """Pieces of pages, in order; `places` names (page number, line number) of every line."""

    pages: tuple[Page, ...]
    places: tuple[tuple[int, int], ...]

    @property
    def lines(self) -> list[Line]:
        """All lines of the window."""
        return [line for page in self.pages for line in page.lines]


@dataclass(frozen=True, slots=True)
class Priced(Generic[L]):
    """A line of any type, with its cost, its page's number and its own."""

    line: L
    cost: int
    page: int
    number: int
    text: str


def windows_of(
    pages: Document | Page | Iterable[Page], cost: Callable[[Line], int], budget: int, *, overlap: int = 0
) -> Iterator[Window]:
    """Windows of at most `budget`; each begins with the last `overlap` lines of the one before, as far as they fit.

    A stream of pages is read as it comes. A line that alone costs more than the budget is an error.
    """

    def priced() -> Iterator[list[Priced[tuple[Page, Line]]]]:
        for page in distinct([pages] if isinstance(pages, Page) else pages):
            yield [Priced((page, line), cost(line), page.number, n, line.text) for n, line in enumerate(page.lines)]

    for held in cut(priced(), budget, overlap=overlap):
        own: dict[int, tuple[Page, list[int]]] = {}
        for one in held:
            page, _ = one.line
            own.setdefault(id(page), (page, []))[1].append(one.number)
        pieces = tuple(whole.of_lines(numbers) for whole, numbers in own.values())
        yield Window(pieces, tuple((one.page, one.number) for one in held))


def cut(
    pages: Iterable[Sequence[Priced[L]]],
    budget: int,
    *,
    overlap: int = 0,
    page_cost: int = 0,
    whole_pages: bool = False,
) -> Iterator[list[Priced[L]]]:
    """The same of lines whose costs are known, page by page. `page_cost`: what each page in a window costs beside its
    lines. `whole_pages`: a page begins a new window rather than be cut, where it fits one."""
    if budget < 1 or overlap < 0:
        raise ConfigError(f"budget={budget} and overlap={overlap}; expected a budget above 0 and an overlap from 0 on")
    held: list[Priced[L]] = []
    fresh = 0
    for lines in pages:
        alone = sum(one.cost for one in lines) + page_cost
        if whole_pages and fresh and _total(held, page_cost) + alone > budget >= alone:
            yield held
            held, fresh = [], 0
        total = _total(held, page_cost)
        for one in lines:
            if one.cost + page_cost > budget:
                raise TooLongError(
                    f"line {one.number} of page {one.page} costs {one.cost + page_cost}, and a window holds {budget}: "
                    f"{shortened(one.text, 60)!r}. Lines are never cut; raise the budget"
                )
            if total + _price(held, one, page_cost) > budget:
                yield held
                held, fresh = held[len(held) - min(overlap, len(held)) :], 0
                while held and _total(held, page_cost) + _price(held, one, page_cost) > budget:
                    held.pop(0)
                total = _total(held, page_cost)
            total += _price(held, one, page_cost)
            held.append(one)
            fresh += 1
    if fresh:
        yield held


def _price(held: Sequence[Priced[L]], one: Priced[L], page_cost: int) -> int:
    """What one more line costs: the first of its page brings the page's cost."""
    return one.cost + (0 if held and held[-1].page == one.page else page_cost)


def _total(held: Sequence[Priced[L]], page_cost: int) -> int:
    return sum(_price(held[max(at - 1, 0) : at], one, page_cost) for at, one in enumerate(held))
