"""Nested answers, as JSON has them: ANLS*, and Donut's two measures of parsed receipts.

anls_star      texts as ANLS; a tuple is one of several gold values; lists are paired for the best sum; dicts by key; what
               is missing or too much counts 0 for each value it holds
donut_f1       (key, value) pairs of all leaves, keys as paths, as multisets
donut_accuracy 1 - tree distance / size of the gold tree in letters and nodes, 0 at least
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vertebra.page.metrics.answers import THRESHOLD
from vertebra.page.metrics.distance import Node, levenshtein, similarity, tree_distance


def anls_star(gold: Any, answer: Any) -> float:
    """0..1; both are nested dicts, lists, texts, numbers (compared as texts) and None."""
    score, size = _star(gold, answer)
    return score / size if size else 1.0


def _star(gold: Any, answer: Any) -> tuple[float, float]:
    """The sum of scores, and how many there are at most."""
    if isinstance(gold, tuple):
        choices = [_star(one, answer) for one in gold]
        return max(choices, key=lambda pair: pair[0] / pair[1] if pair[1] else 1.0)
    if gold is None:
        return float(_nothing(answer)), max(1, _leaves(answer))
    if isinstance(gold, Mapping) and isinstance(answer, Mapping):
        return _star_dict(gold, answer)
    if isinstance(gold, list) and isinstance(answer, list):
        return _star_list(gold, answer)
    if answer is None or isinstance(gold, (Mapping, list)) or isinstance(answer, (Mapping, list)):
        return 0.0, max(_leaves(gold), _leaves(answer))
    found = similarity(*(" ".join(str(one).strip().lower().split()) for one in (gold, answer)))
    return (found if found >= THRESHOLD else 0.0), 1.0


def _star_dict(gold: Mapping[str, Any], answer: Mapping[str, Any]) -> tuple[float, float]:
    score = size = 0.0
    for key in [*gold, *(key for key in answer if key not in gold)]:
        ours, theirs = gold.get(key), answer.get(key)
        if key not in gold and _nothing(theirs):
            continue
        found = _star(ours, theirs)
        score, size = score + found[0], size + found[1]
    return score, size


def _star_list(gold: list[Any], answer: list[Any]) -> tuple[float, float]:
    table = [[_star(one, other) for other in answer] for one in gold]
    ratio = [[pair[0] / pair[1] if pair[1] else 1.0 for pair in row] for row in table]
    for i, one in enumerate(gold):  # among equals, the one that is the same
        ratio[i] = [
            math.nextafter(r, math.inf) if one == other else r for r, other in zip(ratio[i], answer, strict=True)
        ]
    pairs = best_pairs(ratio)
    score = sum(table[i][j][0] for i, j in pairs)
    size = sum(table[i][j][1] for i, j in pairs)
    size += sum(_leaves(gold[i]) for i in set(range(len(gold))) - {i for i, _ in pairs})
    size += sum(_leaves(answer[j]) for j in set(range(len(answer))) - {j for _, j in pairs})
    return score, size


def _nothing(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, Mapping)) and len(value) == 0)


def _leaves(value: Any) -> float:
    if isinstance(value, tuple):
        return max(_leaves(one) for one in value)
    if isinstance(value, Mapping):
        return sum(_leaves(one) for one in value.values())
    if isinstance(value, list):
        return sum(_leaves(one) for one in value)
    return 1


def best_pairs(worth: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """The pairing of rows and columns with the largest sum (Hungarian method)."""
    if not worth or not worth[0]:
        return []
    turned = len(worth) > len(worth[0])
    rows = [list(row) for row in zip(*worth, strict=True)] if turned else [list(row) for row in worth]
    count, width = len(rows), len(rows[0])
    above, beside, match, way = [0.0] * (count + 1), [0.0] * (width + 1), [0] * (width + 1), [0] * (width + 1)
    for row in range(1, count + 1):
        match[0], at = row, 0
        least, used = [float("inf")] * (width + 1), [False] * (width + 1)
        while match[at]:
            used[at] = True
            current, delta, nearest = match[at], float("inf"), 0
            for column in range(1, width + 1):
                if not used[column]:
                    cost = -rows[current - 1][column - 1] - above[current] - beside[column]
                    if cost < least[column]:
                        least[column], way[column] = cost, at
                    if least[column] < delta:
                        delta, nearest = least[column], column
            for column in range(width + 1):
                if used[column]:
                    above[match[column]] += delta
                    beside[column] -= delta
                else:
                    least[column] -= delta
            at = nearest
        while at:
            match[at] = match[way[at]]
            at = way[at]
    pairs = [(match[column] - 1, column - 1) for column in range(1, width + 1) if match[column]]
    return sorted((j, i) if turned else (i, j) for i, j in pairs)


def parsed(value: Any) -> Any:
    """As Donut compares it: keys by length and letters, every value a list, texts stripped; what is empty is left out, and
    so is what is neither text nor number in a list that does not hold objects alone."""
    if not value:
        return {}
    if isinstance(value, Mapping):
        made = {}
        for key in sorted(value, key=lambda key: (len(str(key)), str(key))):
            if inner := parsed(value[key]):
                made[str(key)] = inner if isinstance(inner, list) else [inner]
        return made
    if not isinstance(value, list):
        return [str(value).strip()]
    if all(isinstance(one, Mapping) for one in value):
        return [inner for one in value if (inner := parsed(one))]
    return [text for one in value if type(one) in (str, int, float) and (text := str(one).strip())]


def flattened(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, text) of every leaf; the places in a list are no part of a path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flattened(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from flattened(inner, path)
    else:
        yield path, str(value)


def donut_f1(golds: Sequence[Any], answers: Sequence[Any]) -> float:
    """Over documents together: pairs that are right, twice, over pairs there and pairs given."""
    right = total = 0
    for gold, answer in zip(golds, answers, strict=True):
        ours, theirs = Counter(flattened(parsed(gold))), Counter(flattened(parsed(answer)))
        right += sum((ours & theirs).values())
        total += sum(ours.values()) + sum(theirs.values())
    return 2 * right / total if total else 1.0


def donut_accuracy(gold: Any, answer: Any) -> float:
    """Of one document, by its trees; adding or removing a leaf costs its letters, changing it those that differ."""
    ours = _tree(parsed(gold))
    size = tree_distance(Node("<root>"), ours, _rename, _weight)
    apart = tree_distance(_tree(parsed(answer)), ours, _rename, _weight)
    return max(0.0, 1.0 - apart / size) if size else float(apart == 0)


def _tree(value: Any, label: str = "<root>") -> Node:
    if isinstance(value, Mapping):
        return Node(label, [_tree(inner, key) for key, inner in value.items()])
    if all(isinstance(one, Mapping) for one in value):
        return Node(label, [_tree(one, "<subtree>") for one in value])
    return Node(label, [Node(("leaf", one)) for one in value])


def _weight(label: Any) -> float:
    return float(len(label[1])) if isinstance(label, tuple) else 1.0


def _rename(one: Any, other: Any) -> float:
    leaves = [label[1] for label in (one, other) if isinstance(label, tuple)]
    if len(leaves) == 2:
        return float(levenshtein(*leaves))
    return 1.0 + len(leaves[0]) if leaves else float(one != other)
