"""Whose text a position holds, and the targets that are no tokens. It knows no sequence."""

from __future__ import annotations

from enum import IntEnum

NO_TARGET = -100
"""The target of a position that predicts nothing (a slot of an image, padding); its weight is 0."""


VALUE_TARGET = -200
"""The target of a slot whose answer is an outside value, such as a number of an action: its items are in the batch's
`features`, and a head of the model learns them."""

NO_VALUE = -3.0e38
"""A number of such a value that there is none of (an action behind the end of its episode): nothing is learned there."""


class Role(IntEnum):
    """Whose text a position holds."""

    PAD = 0
    TEXT = 1  # plain text, and marks such as BOS that belong to nobody
    SYSTEM = 2
    USER = 3
    ASSISTANT = 4
    TOOL = 5
    IMAGE = 6
    PAGE = 7
    VECTOR = 8
    ACTION = 9
