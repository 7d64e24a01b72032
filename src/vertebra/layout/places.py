"""The way back: from a position of a sequence to the page, the line and the word that it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vertebra.layout.lines import Laid


class PagePlace(NamedTuple):
    """Where something stands in a document."""

    page: int
    """The number of the page, from 1 on."""
    line: int
    """The number of the line on its page, from 0 on."""
    word: int | None = None
    """The number of the word in its line (`Laid.words`); None: the whole line, such as its box."""


@dataclass(frozen=True, eq=False)
class Places:
    """Of every position of one row."""

    lines: tuple[Laid, ...]
    """The lines of the row, in their order in it."""
    origin: np.ndarray
    """[N, 2]: the number of the line among `lines`, and of the word in it; −1 where there is none."""

    def __len__(self) -> int:
        return len(self.origin)

    def laid(self, position: int) -> Laid | None:
        """The line that a position is part of."""
        line = int(self.origin[position, 0])
        return None if line < 0 else self.lines[line]

    def of(self, position: int) -> PagePlace | None:
        """Where a position comes from; None: it is no part of the page."""
        laid, word = self.laid(position), int(self.origin[position, 1])
        return None if laid is None else PagePlace(laid.page, laid.number, None if word < 0 else word)

    def at(self, page: int, line: int | None = None, word: int | None = None) -> np.ndarray:
        """The positions of a page, of one of its lines, or of a word of that; slots of boxes are among a line's."""
        numbers = [n for n, one in enumerate(self.lines) if one.page == page and line in (None, one.number)]
        here = np.isin(self.origin[:, 0], numbers) if numbers else np.zeros(len(self.origin), bool)
        if word is not None:
            here = here & (self.origin[:, 1] == word)
        return np.flatnonzero(here)
