"""What one message says: plain text, what enters it at a character as ids or as slots, and which characters are a page's.

It knows neither who speaks nor tokenizers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vertebra.sequence.roles import Role


@dataclass(slots=True)  # not frozen: a row has hundreds, and a frozen one takes six times as long to make
class Splice:
    """What enters the sequence at one place of the text: ids as they are, or slots of a segment."""

    role: Role
    ids: tuple[int, ...] = ()
    segment: str | None = None
    count: int = 0
    anchored: bool = False
    """Its slots stand right after BOS, wherever the part was written."""
    line: int = -1
    """The line of a page that it is the box of."""


class Stretch(NamedTuple):
    """Characters `start:stop` of a page: all of it, one of its lines, or a word of one."""

    start: int
    stop: int
    line: int = -1
    """Its number, counted through all pages of the conversation; −1: nobody asked."""
    word: int = -1
    """Its number in the line; −1: the line itself."""


@dataclass(slots=True)  # as `Splice`
class Content:
    """What one message says: text, what enters it at which character, and which characters are a page's."""

    text: str
    splices: tuple[tuple[int, Splice], ...] = ()
    pages: tuple[Stretch, ...] = ()

    def cut(self, start: int, stop: int) -> Content:
        """Characters `start:stop`; splices beyond the cut move to its ends, for nothing but text is cut off."""
        if start == 0 and stop == len(self.text):
            return self
        return Content(
            self.text[start:stop],
            tuple((min(max(at, start), stop) - start, splice) for at, splice in self.splices),
            tuple(
                one._replace(start=max(one.start, start) - start, stop=min(one.stop, stop) - start)
                for one in self.pages
                if one.start < stop and one.stop > start
            ),
        )

    def stripped(self) -> Content:
        text = self.text
        if text.strip() == text:
            return self
        start = len(text) - len(text.lstrip())
        return self.cut(start, max(start, len(text.rstrip())))

    def without(self, mark: str, begin: int = 0) -> Content:
        """Every `mark` cut out of the text, as `str.replace` does it."""
        at = self.text.find(mark, begin)
        if at < 0:
            return self
        after = at + len(mark)
        text = self.text[:at] + self.text[after:]
        closed = Content(
            text,
            tuple((_moved(where, at, after), splice) for where, splice in self.splices),
            tuple(
                one._replace(start=_moved(one.start, at, after), stop=_moved(one.stop, at, after)) for one in self.pages
            ),
        )
        return closed.without(mark, at)

    def behind(self, text: str) -> Content:
        """The same with a text before it."""
        return Content(
            text + self.text,
            tuple((at + len(text), splice) for at, splice in self.splices),
            tuple(one._replace(start=one.start + len(text), stop=one.stop + len(text)) for one in self.pages),
        )

    @property
    def empty(self) -> bool:
        return not self.splices and not self.text.strip()

    @property
    def begins_with_splice(self) -> bool:
        """Whether something enters before any visible text: an action, say."""
        return any(not self.text[:at].strip() for at, _ in self.splices)


def _moved(where: int, start: int, stop: int) -> int:
    """Where a character stands once `start:stop` is cut out."""
    return where if where <= start else max(start, where - (stop - start))
