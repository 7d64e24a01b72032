"""What a setting of decoding may be, in words and as a test. A value of another kind than any of these is none of them: it is
refused in the same words, and not by whatever it does to the comparison. It knows no setting by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch


class Allowed(NamedTuple):
    """What a setting may be."""

    expected: str
    holds: Callable[[Any], bool]

    def admits(self, value: Any) -> bool:
        """Whether it is that; a text for a number, say, is not."""
        try:
            return bool(self.holds(value))
        except (TypeError, ValueError, LookupError):
            return False


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def ids_of(value: Any) -> tuple[Any, ...]:
    """One id, several or none, as a tuple."""
    if value is None:
        return ()
    if isinstance(value, torch.Tensor):
        return tuple(value.flatten().tolist())
    several = isinstance(value, Sequence | Mapping | set | frozenset) and not isinstance(value, str | bytes)
    return tuple(value) if several else (value,)


COUNT = Allowed("a whole number from 1 on", lambda value: _whole(value) and value >= 1)
FROM_0 = Allowed("a whole number from 0 on", lambda value: _whole(value) and value >= 0)
TOP_K = Allowed("a whole number from 1 on (0 or None: off)", FROM_0.holds)
SECONDS = Allowed("seconds, more than 0", lambda value: value > 0)
HEAT = Allowed("a number from 0 on", lambda value: 0 <= value < float("inf"))
SHARE = Allowed("a number from 0 to 1", lambda value: 0 <= value <= 1)
SOME_SHARE = Allowed("a number from 0 to 1, and 0 keeps no token", lambda value: 0 < value <= 1)
PENALTY = Allowed("a number above 0 (1: off)", lambda value: value > 0)
DECAY = Allowed("(a step from 0 on, a factor above 0)", lambda value: len(value) == 2 and value[0] >= 0 < value[1])
IDS = Allowed("token ids", lambda value: all(map(_whole, ids_of(value))))
WORDS = Allowed(
    "lists of token ids, none of them empty",
    lambda value: all(ids_of(words) and all(map(_whole, words)) for words in value),
)
SEED = Allowed(
    "whole numbers from -2**63 to 2**63 - 1",
    lambda value: all(hasattr(one, "__index__") and -(2**63) <= one < 2**63 for one in ids_of(value)),
)
ID = Allowed("a token id", _whole)
YES_OR_NO = Allowed("True or False", lambda value: isinstance(value, bool))
FUNCTION = Allowed("a function", callable)
FUNCTIONS = Allowed("a list of functions", lambda value: all(map(callable, value)))
CONSTRAINT = Allowed("a Constraint", lambda value: hasattr(value, "follow"))
TEXT = Allowed("text, none of it empty", lambda value: all(isinstance(text, str) and text for text in texts_of(value)))


def texts_of(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
