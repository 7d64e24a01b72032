"""How every benchmark here measures: both sides in turn, round by round, medians and their ratio.

Machines are shared and clocks drift; a slow moment then meets all sides, and an A/A line (ours against ours) shows how
steady the ratio is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Work = Callable[[], object]


def seconds(work: Work, *, repeats: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    for _ in range(repeats):
        work()
    return (clock() - start) / repeats


def in_turn(
    works: Mapping[str, Work], *, rounds: int, repeats: int = 1, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each work; the order turns from round to round."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            taken[name].append(seconds(works[name], repeats=repeats, clock=clock))
    return {name: statistics.median(times) for name, times in taken.items()}


def paired_ratio(one: Work, other: Work, *, rounds: int, repeats: int = 1) -> float:
    """Median of one/other over rounds that run both back to back: steady where medians of each drift."""
    ratios = []
    for number in range(rounds):
        pair = [(0, one), (1, other)] if number % 2 else [(1, other), (0, one)]
        taken = {index: seconds(work, repeats=repeats, clock=time.process_time) for index, work in pair}
        ratios.append(taken[0] / taken[1])
    return statistics.median(ratios)


def line(name: str, value: float, *, unit: str = "s", beside: str = "") -> None:
    print(f"  {name:<44} {value:10.4g} {unit}{'   ' + beside if beside else ''}")
