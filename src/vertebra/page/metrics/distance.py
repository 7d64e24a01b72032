"""Edit distance of sequences and of labelled trees, by dynamic programming; nothing here knows documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


def levenshtein(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Fewest insertions, deletions and replacements that make one sequence the other."""
    if len(one) < len(other):
        one, other = other, one
    before = list(range(len(other) + 1))
    for row, left in enumerate(one, 1):
        now = [row]
        for column, right in enumerate(other, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (left != right)))
        before = now
    return before[-1]


def similarity(one: str, other: str) -> float:
    """1 - distance / the longer length; 1 for two empty texts."""
    longest = max(len(one), len(other))
    return 1.0 if longest == 0 else 1.0 - levenshtein(one, other) / longest


@dataclass
class Node:
    """A node of an ordered tree."""

    label: Any
    children: list[Node] = field(default_factory=list)

    def __len__(self) -> int:
        return 1 + sum(len(child) for child in self.children)


def tree_distance(
    one: Node, other: Node, rename: Callable[[Any, Any], float], weigh: Callable[[Any], float] = lambda _: 1.0
) -> float:
    """The tree edit distance of Zhang and Shasha: removing or adding a node costs `weigh` of its label, renaming one
    costs `rename`."""
    ours, theirs = _Ordered(one, weigh), _Ordered(other, weigh)
    table = [[0.0] * len(theirs.labels) for _ in ours.labels]
    for i in ours.keyroots:
        for j in theirs.keyroots:
            _forest(ours, theirs, i, j, table, rename)
    return table[-1][-1]


class _Ordered:
    """A tree in post-order: labels, the leftmost leaf below each node, the key roots."""

    def __init__(self, root: Node, weigh: Callable[[Any], float]) -> None:
        self.labels: list[Any] = []
        self.leftmost: list[int] = []
        self._walk(root)
        last = {leaf: node for node, leaf in enumerate(self.leftmost)}
        self.keyroots = sorted(last.values())
        self.weights = [weigh(label) for label in self.labels]

    def _walk(self, node: Node) -> int:
        leaves = [self._walk(child) for child in node.children]
        self.labels.append(node.label)
        self.leftmost.append(leaves[0] if leaves else len(self.labels) - 1)
        return self.leftmost[-1]


def _forest(
    ours: _Ordered, theirs: _Ordered, i: int, j: int, table: list[list[float]], rename: Callable[[Any, Any], float]
) -> None:
    left, right = ours.leftmost[i], theirs.leftmost[j]
    rows, columns = i - left + 2, j - right + 2
    cost = [[0.0] * columns for _ in range(rows)]
    for row in range(1, rows):
        cost[row][0] = cost[row - 1][0] + ours.weights[left + row - 1]
    for column in range(1, columns):
        cost[0][column] = cost[0][column - 1] + theirs.weights[right + column - 1]
    for row in range(1, rows):
        for column in range(1, columns):
            a, b = left + row - 1, right + column - 1
            cheapest = min(cost[row - 1][column] + ours.weights[a], cost[row][column - 1] + theirs.weights[b])
            if ours.leftmost[a] == left and theirs.leftmost[b] == right:
                whole = cost[row - 1][column - 1] + rename(ours.labels[a], theirs.labels[b])
                cost[row][column] = table[a][b] = min(cheapest, whole)
            else:
                apart = cost[ours.leftmost[a] - left][theirs.leftmost[b] - right] + table[a][b]
                cost[row][column] = min(cheapest, apart)
