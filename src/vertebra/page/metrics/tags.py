"""Entity F1 of tagged words (BIO), as seqeval counts it: an entity is right where kind, start and end are.

`mode="lenient"` is seqeval's default: an `I-` with nothing before it opens an entity; `strict` (IOB2) lets `B-` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from vertebra.errors import ConfigError, DataError

Mode = Literal["lenient", "strict"]
Entity = tuple[str, int, int]


def entities(tags: Sequence[str], mode: Mode = "lenient") -> set[Entity]:
    """(kind, first word, last word) of every entity of a sentence."""
    if mode not in ("lenient", "strict"):
        raise ConfigError(f"mode is {mode!r}; expected `lenient` or `strict`")
    found: set[Entity] = set()
    kind, start = "", -1
    for number, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        goes_on = mark == "I" and start >= 0 and name == kind
        if goes_on:
            continue
        if start >= 0:
            found.add((kind, start, number - 1))
        start = -1
        if mark == "B" or (mark == "I" and mode == "lenient"):
            kind, start = name, number
    return found


def entity_f1(golds: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], *, mode: Mode = "lenient") -> float:
    """Micro F1 over all sentences; 0 where neither has an entity, as in seqeval."""
    right = total = 0
    for number, (gold, answer) in enumerate(zip(golds, answers, strict=True)):
        if len(gold) != len(answer):
            raise DataError(
                f"sentence {number} has {len(gold)} gold tags and {len(answer)} given ones; expected as many"
            )
        ours, theirs = entities(gold, mode), entities(answer, mode)
        right += len(ours & theirs)
        total += len(ours) + len(theirs)
    return 2 * right / total if total else 0.0
