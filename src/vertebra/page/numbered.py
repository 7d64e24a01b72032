"""Facts of a page that name its lines by number: they follow when lines are put in another order or left out.

    links               FUNSD's pairs of lines; a pair of which one end is left out goes
    evidence            of each field the lines that hold it
    cord                `groups` and `rows`, an entry a line

Facts are whatever a file has: one that does not look so is none of these, and stays as it is. Of boxes it knows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_A_LINE_EACH = ("groups", "rows")


def facts_of_lines(facts: Mapping[str, Any], numbers: Sequence[int], count: int) -> Mapping[str, Any]:
    """The facts of a page of `count` lines once it has those of `numbers`, in that order."""
    if not facts.keys() & _FOLLOWING.keys() or list(numbers) == list(range(count)):
        return facts
    return {
        name: _FOLLOWING[name](value, numbers, count) if name in _FOLLOWING else value for name, value in facts.items()
    }


def facts_without_lines(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that stay true of the page when it is given other lines."""
    return {name: value for name, value in facts.items() if name not in _FOLLOWING}


def _links(links: Any, numbers: Sequence[int], count: int) -> Any:
    if not isinstance(links, (list, tuple)) or not all(_named(pair, count) and len(pair) == 2 for pair in links):
        return links
    now = _now(numbers)
    return sorted([now[end] for end in pair] for pair in links if all(end in now for end in pair))


def _evidence(evidence: Any, numbers: Sequence[int], count: int) -> Any:
    if not isinstance(evidence, Mapping) or not all(_named(lines, count) for lines in evidence.values()):
        return evidence
    now = _now(numbers)
    return {name: [now[line] for line in lines if line in now] for name, lines in evidence.items()}


def _cord(own: Any, numbers: Sequence[int], count: int) -> Any:
    if not isinstance(own, Mapping):
        return own
    return {
        name: [value[number] for number in numbers]
        if name in _A_LINE_EACH and isinstance(value, (list, tuple)) and len(value) == count
        else value
        for name, value in own.items()
    }


def _now(numbers: Sequence[int]) -> dict[int, int]:
    return {number: place for place, number in enumerate(numbers)}


def _named(lines: Any, count: int) -> bool:
    return isinstance(lines, (list, tuple)) and all(type(line) is int and 0 <= line < count for line in lines)


_FOLLOWING: dict[str, Callable[[Any, Sequence[int], int], Any]] = {
    "links": _links,
    "evidence": _evidence,
    "cord": _cord,
}
"""Of each such fact how it follows: from its value, the numbers of the lines that stay, and how many there were."""
