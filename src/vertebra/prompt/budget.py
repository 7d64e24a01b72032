"""What a chat template may cost: steps of work, and characters of text. It comes with a model and is not trusted.

Every value that a template makes or walks is weighed once and charged; what would grow beyond the budget within a
single operation (`'a' * 10 ** 10`, a width of a thousand million) is refused before it is done. It knows no jinja.
"""

from __future__ import annotations

import re
from collections.abc import ItemsView, KeysView, Mapping, Sequence, Set, Sized, ValuesView
from typing import Any

STEPS = 1_000_000
"""Of any rendering; real templates take some dozens a message."""
STEPS_A_MESSAGE = 2_000
CHARACTERS = 4_000_000
"""Of text at a time, beyond 64 times what the conversation itself holds."""
_TEXT_A_STEP = 256
_PLAIN = 24  # characters of a number or a name, about
_BITS = 65_536
"""Of an integer: Python does not bound them."""
_WIDE = re.compile(r"\d{5}|%[^a-zA-Z%]*\*|\{[^{}]*\{")
"""In a format string: a width of five digits or more, or one that is given by an argument."""
_MANY = (list, tuple, dict, set, frozenset, KeysView, ValuesView, ItemsView)


class TooCostly(Exception):
    """The budget is used up; for this package only, a `PromptError` is made of it."""


class Budget:
    """What is left for one rendering."""

    def __init__(self, messages: Sequence[Mapping[str, Any]] = (), *, text: int = 0) -> None:
        self.steps = STEPS + STEPS_A_MESSAGE * len(messages)
        self.characters = CHARACTERS + 64 * text
        # by id, with the value itself, so that its id is not given to another
        self._measures: dict[int, tuple[Any, tuple[int, int]]] = {}

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise TooCostly("it takes more steps than any template needs: does it end?")

    def allow(self, characters: int) -> None:
        """Refuse a text, or a list, before it is made."""
        if characters > self.characters:
            raise TooCostly(f"it makes {characters:.3g} characters or items at once; {self.characters:,} are allowed")

    def allow_bits(self, bits: float) -> None:
        if bits > _BITS:
            raise TooCostly("it makes an integer of many thousands of digits")

    def weight(self, value: Any) -> int:
        """Steps that walking a value takes, with all that is in it; what is in it twice counts twice."""
        if type(value) is str and len(value) < _TEXT_A_STEP:  # nearly all of them
            return 1
        return self._measured(value)[0]

    def text(self, value: Any) -> int:
        """About how many characters a value has as text."""
        return self._measured(value)[1]

    def _measured(self, value: Any) -> tuple[int, int]:
        if isinstance(value, (str, bytes)):
            self.allow(len(value))
            return 1 + len(value) // _TEXT_A_STEP, len(value)
        if not isinstance(value, _MANY):
            return 1, _PLAIN
        known = self._measures.get(id(value))
        if known is not None:
            return known[1]
        steps, characters = 1, 2
        for item in value.items() if isinstance(value, dict) else value:
            inner = self._measured(item)
            steps, characters = steps + inner[0], characters + inner[1] + 4
            if steps > self.steps:
                raise TooCostly("it makes a list of lists with more items than any prompt needs")
        # views are made anew at each call, and their pairs too: only what stays is remembered
        if isinstance(value, (list, tuple, dict)):
            self._measures[id(value)] = (value, (steps, characters))
        return steps, characters

    def shallow(self, value: Any) -> int:
        """Steps that touching a value takes, without what is in it."""
        if isinstance(value, (str, bytes)):
            return self.weight(value)
        return 1 + len(value) // 16 if isinstance(value, Sized) and isinstance(value, _MANY) else 1

    def weighed(self, value: Any) -> Any:
        """A value that was made, charged and handed on."""
        self.spend(self.weight(value))
        return value

    def operation(self, operator: str, left: Any, right: Any) -> None:
        """Refuse `left operator right` where its result is too large."""
        size_left, size_right = _size(left), _size(right)
        if operator == "+" and size_left and size_right:
            self.allow(size_left + size_right)
        elif operator == "%" and isinstance(left, (str, bytes)):
            self.format(left, right)
        elif operator == "*":
            times = [n for n in (left, right) if isinstance(n, int)]
            if len(times) == 2:
                self.allow_bits(left.bit_length() + right.bit_length())
            elif times:
                self.allow(max(size_left, size_right) * max(times[0], 0))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            self.allow_bits(left.bit_length() * abs(right))

    def format(self, pattern: str | bytes, *values: Any) -> None:
        """Refuse a format string with huge widths, or with so many fields that values grow by them."""
        text = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
        if _WIDE.search(text):
            raise TooCostly("it formats with a width that no prompt needs")
        self.allow(len(text) + (text.count("{") + text.count("%")) * self.text(values))

    def method(self, owner: Any, name: str, values: Sequence[Any]) -> None:
        """Refuse a call of a built-in method, or of the filter of the same name, whose result is too large."""
        if isinstance(owner, (str, bytes)) and name in ("format", "format_map"):
            self.format(owner, *values)
            return
        for value in values:
            if isinstance(value, int):
                self.allow(abs(value))
        if not isinstance(owner, (str, bytes)):
            return
        if name == "replace" and len(values) > 1 and isinstance(values[0], type(owner)):
            self.allow(len(owner) + owner.count(values[0]) * _size(values[1]))  # type: ignore[arg-type]
        elif name == "join" and values:
            self.joined(owner, values[0])
        elif name in ("translate", "expandtabs", "indent", "wordwrap"):
            most = max([8, *(n if isinstance(n, int) else self.text(n) for n in values)])
            places = len(owner) if name in ("translate", "wordwrap") else _places(owner)
            self.allow(len(owner) + places * most)

    def joined(self, between: Any, items: Any) -> None:
        """Refuse a text of items with something between each."""
        self.allow(self.text(items) + _size(items) * self.text(between))


def _size(value: Any) -> int:
    return len(value) if isinstance(value, (str, bytes, Set, *_MANY)) else 0


def _places(text: str | bytes) -> int:
    """Where lines and tabs begin."""
    return 1 + (text.count("\n") + text.count("\t") if isinstance(text, str) else len(text))
