"""Written JSON with its places: what `json` reads, and of every beginning of it what came through."""

from __future__ import annotations

import json
import random

from vertebra.documents.spelled import SpelledValue, spelled


def plain(one: SpelledValue):
    if isinstance(one.value, dict):
        return {name: plain(inner) for name, inner in one.value.items()}
    if isinstance(one.value, list):
        return [plain(inner) for inner in one.value]
    return one.value


def some(chance: random.Random, depth: int = 0):
    kind = chance.randrange(7 if depth < 3 else 5)
    if kind == 5:
        return [some(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 6:
        return {
            chance.choice(["a", 'b"', "\\", "<s>", "é", ""]) + str(n): some(chance, depth + 1)
            for n in range(chance.randrange(4))
        }
    return chance.choice([None, True, False, chance.randrange(-99, 99), 1.5, "", 'a "b" \\ é \n {[', "x, y: ]}"])


def test_as_json_reads_it():
    chance = random.Random(1)
    for _ in range(300):
        value = some(chance)
        text = json.dumps(value, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 1]))
        made = spelled(text)
        assert plain(made) == value
        assert made.whole
        assert json.loads(text[made.start : made.end]) == value


def test_every_beginning():
    """What is whole in it is what stands there; nothing is invented."""
    text = json.dumps([{"name": "Rice", "price": "4.50"}, {"name": 'T"ea', "price": None}])
    for end in range(len(text)):
        made = spelled(text[:end])
        assert not made.whole
        items = plain(made) or []
        for item, true in zip(items, json.loads(text), strict=False):
            for name, value in (item or {}).items():
                assert value is None or str(true[name]).startswith(value)
    assert plain(spelled(text[:-2])) == json.loads(text)
    assert plain(spelled("")) is None
