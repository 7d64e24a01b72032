"""Sequences written by hand, position by position: patches behind BOS, then text, then slots."""

from __future__ import annotations

from typing import Any

from vertebra.sequence.tokens import TokenSequence


def row(ids: list[int], slots: list[tuple[str, int]], chunk: int = 0, tail: tuple[int, ...] = ()) -> TokenSequence:
    """BOS, the slots of each segment, the rest of the ids; `chunk`: slots of an action behind, everything both ways."""
    before = [(number, i) for number, (_, count) in enumerate(slots) for i in range(count)]
    after = [(len(slots), i) for i in range(chunk)]
    none = (-1, -1)
    names = [name for name, _ in slots] + (["action"] if chunk else [])
    options: dict[str, Any] = {"block": 1} if chunk else {}
    return TokenSequence.of(
        [ids[0], *[0] * len(before), *ids[1:], *[0] * chunk, *tail],
        slot=[none, *before, *[none] * (len(ids) - 1), *after, *[none] * len(tail)],
        segments=names,
        **options,
    )
