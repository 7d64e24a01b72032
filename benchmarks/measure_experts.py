"""How far Meta-World's scripted experts hold: success and steps by spread, for the columns of `simulate/metaworld/measured.py`.

python benchmarks/measure_experts.py [TASK …]       one line of JSON a task
"""

from __future__ import annotations

import json
import sys

from vertebra.simulate import episode_seed, open_task, task_facts, task_names

EPISODES = 30
SPREADS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)


def measured(task: str, **options: object) -> tuple[float, list[int]]:
    """(success, steps of the episodes that succeeded)."""
    simulation = open_task(task, limit=500, beyond=True, **options)
    steps = []
    for number in range(EPISODES):
        simulation.reset(episode_seed("collect", task, 1000, number))
        for step in range(simulation.limit):
            if simulation.step(simulation.expert()).success:
                steps.append(step + 1)
                break
    return len(steps) / EPISODES, sorted(steps)


def row(task: str) -> dict[str, object]:
    """What is measured of a task: its rate by spread until it falls below 0.9, its steps, and its rate in the shared scene."""
    rates: dict[str, float] = {}
    found: dict[str, object] = {"task": task}
    for spread in SPREADS:
        rate, steps = measured(task, spread=spread)
        rates[f"{spread:g}"] = round(rate, 3)
        if spread == 1.0:
            found |= {"median": steps[len(steps) // 2] if steps else None, "longest": steps[-1] if steps else None}
        else:
            found["longest_spread"] = steps[-1] if steps else None
        if rate < 0.9:
            break
    found["rates"] = rates
    if task_facts(task).partner:
        found["shared"] = {f"{spread:g}": round(measured(task, spread=spread, shared=True)[0], 3) for spread in SPREADS}
    return found


if __name__ == "__main__":
    for name in sys.argv[1:] or task_names():
        print(json.dumps(row(name)), flush=True)
