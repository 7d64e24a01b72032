"""The arithmetic of success: how sure a rate is, and whether two arms on the same seeds differ. Knows no episodes."""

from __future__ import annotations

import math

Z = 1.959963984540054
"""Of 95 %, two-sided."""


def wilson(successes: float, count: float, *, z: float = Z) -> tuple[float, float]:
    """Wilson's interval of a success rate; of nothing, everything is possible."""
    if count == 0:
        return 0.0, 1.0
    rate = successes / count
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    low, high = middle - half, middle + half
    return (0.0 if successes == 0 else low), (1.0 if successes == count else high)


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test, two-sided: the chance of so uneven a split of the pairs that differ, were both arms equal."""
    count, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(count, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**count)


def paired_difference(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float, float]:
    """(difference, low, high) of two arms' success rates on the same seeds: Newcombe's score interval for pairs (his 10th).

    Unlike a bootstrap's it is none of width zero where no pair differs.
    """
    count = both + only_first + only_second + neither
    if count == 0:
        return 0.0, -1.0, 1.0
    first, second = both + only_first, both + only_second
    one, other = first / count, second / count
    (low_1, high_1), (low_2, high_2) = wilson(first, count), wilson(second, count)
    product = first * (count - first) * second * (count - second)
    excess: float = both * neither - only_first * only_second
    if excess > 0:
        excess = max(excess - count / 2, 0)  # for continuity
    phi = excess / math.sqrt(product) if product else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    difference = one - other
    return difference, difference - reach(one - low_1, high_2 - other), difference + reach(high_1 - one, other - low_2)
