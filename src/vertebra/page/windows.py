"""A long document as windows that each fit: whole lines with their boxes, never part of one.

What a line costs is asked of the caller (the tokens of its text and its slot, say), so that nothing here knows tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from vertebra.errors import ConfigError, TooLongError, shortened
from vertebra.page.page import Document, Line, Page


@dataclass(frozen=True)
class Window:
    """Pieces of pages, in order; `places` names (page number, line number) of every line."""

    pages: tuple[Page, ...]
    places: tuple[tuple[int, int], ...]

    @property
    def lines(self) -> list[Line]:
        """All lines of the window."""
        return [line for page in self.pages for line in page.lines]


def windows_of(
    pages: Document | Page | Iterable[Page], cost: Callable[[Line], int], budget: int, *, overlap: int = 0
) -> Iterator[Window]:
    """Windows of at most `budget`; each begins with the last `overlap` lines of the one before, as far as they fit.

    A stream of pages is read as it comes. A line that alone costs more than the budget is an error.
    """
    if budget < 1 or overlap < 0:
        raise ConfigError(f"budget={budget} and overlap={overlap}; expected a budget above 0 and an overlap from 0 on")
    held: list[tuple[Page, int, int]] = []  # (page, line number, its cost)
    total = fresh = 0
    for page in [pages] if isinstance(pages, Page) else pages:
        for number, line in enumerate(page.lines):
            price = cost(line)
            if price > budget:
                raise TooLongError(
                    f"line {number} of page {page.number} costs {price}, and a window holds {budget}: "
                    f"{shortened(line.text, 60)!r}. Lines are never cut; raise the budget"
                )
            if total + price > budget:
                yield _window(held)
                held = held[len(held) - min(overlap, len(held)) :]
                while held and sum(one[2] for one in held) + price > budget:
                    held.pop(0)
                total, fresh = sum(one[2] for one in held), 0
            held.append((page, number, price))
            total, fresh = total + price, fresh + 1
    if fresh:
        yield _window(held)


def _window(held: list[tuple[Page, int, int]]) -> Window:
    pages: list[Page] = []
    for page, number, _ in held:
        if not pages or pages[-1].number != page.number:
            pages.append(replace(page, lines=()))
        pages[-1] = replace(pages[-1], lines=(*pages[-1].lines, page.lines[number]))
    return Window(tuple(pages), tuple((page.number, number) for page, number, _ in held))
