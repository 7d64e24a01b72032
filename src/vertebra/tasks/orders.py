"""Kind `orders`: a short order in anybody's words, answered as JSON with three fields.

    Please send seven purple rugs to Clara.   ─►   {"item": "rug", "color": "purple", "count": 7}

A habit that a small model lacks and learns in minutes. Right is an answer that is, letter for letter, that JSON; held-out
orders speak of items in colors that no training order has.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np

from vertebra.tasks.quiz import Item, Quiz, QuizQuestion

_ITEMS = {
    "mug": "mugs", "lamp": "lamps", "chair": "chairs", "towel": "towels", "basket": "baskets", "clock": "clocks",
    "kettle": "kettles", "pillow": "pillows", "bowl": "bowls", "vase": "vases", "brush": "brushes", "candle": "candles",
    "shelf": "shelves", "rug": "rugs", "mirror": "mirrors", "plate": "plates",
}  # fmt: skip
_COLORS = ("red", "green", "blue", "white", "black", "yellow", "purple", "orange", "brown", "grey")
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_PEOPLE = ("Anna", "Bruno", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ines", "Jonas")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_FORMS = (
    "please send {count} {color} {item} to {person}.",
    "{person} would like {count} {color} {item} by {day}.",
    "could we have {count} {item} in {color}, for {person}?",
    "order for {person}: {item}, {color}, {count} of them.",
    "we need {count} {color} {item} on {day}.",
    "{person} asked me on {day} for {count} {item}, all of them {color}.",
    "make it {count} {item} this time; {color}, as {person} said.",
    "hello, {person} here. {count} {color} {item}, please!",
)


class Orders(Quiz):
    """Orders become JSON."""

    name: ClassVar[str] = "orders"
    supervised: ClassVar[float] = 0.4
    longest: ClassVar[int] = 40

    def item(self, seed: int, number: int, options: Any, *, held_out: bool) -> Item:
        rng = np.random.default_rng([seed, number])
        item, color = str(rng.choice(list(_ITEMS))), str(rng.choice(_COLORS))
        while is_unseen(item, color) and not held_out:
            color = str(rng.choice(_COLORS))
        count = int(rng.integers(1, len(_NUMBERS) + 1))
        text = str(rng.choice(_FORMS)).format(
            item=item if count == 1 else _ITEMS[item],
            color=color,
            count=_NUMBERS[count - 1] if rng.random() < 0.5 else count,
            person=rng.choice(_PEOPLE),
            day=rng.choice(_DAYS),
        )
        answer = json.dumps({"item": item, "color": color, "count": count})
        return Item(questions=(QuizQuestion(text=text[0].upper() + text[1:], answer=answer, sort="accuracy"),))


def is_unseen(item: str, color: str) -> bool:
    """Whether training never orders this item in this color: one color of each."""
    return _COLORS[list(_ITEMS).index(item) % len(_COLORS)] == color
