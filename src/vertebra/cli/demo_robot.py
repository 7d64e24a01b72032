"""The demo's main job: a robot in a simulator learns five tasks from demonstrations, and is then asked to do them.

    experts ──collect──► demonstrations ──train──► a policy, and its blind twin ──evaluate──► one page with films

Objects stand far more widely than in the stock tasks, so that a policy that does not look fails; the blind twin shows it.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertebra.cli.demo_training import Training, train_at_once

if TYPE_CHECKING:
    from vertebra.evaluate.settings import EvaluationSettings
    from vertebra.simulate.workers import Workers

RECIPE = "metaworld-five"
SHARED = ("faucet-open", "faucet-close")
"""Tasks of one scene: only the instruction says which is meant."""
TASKS = ("drawer-open", "drawer-close", *SHARED, "button-press-topdown")
EVERY = 3
"""Steps between two images of a demonstration."""
BLIND = ("data.options.cameras=[]", "model.image=null")


DOES, DOES_WIDE, LOOKS, LISTENS = 0.82, 0.7, 0.3, 0.2
"""The least share of stock episodes, of wide ones, and beyond the blind twin's; the most when asked for another task."""


@dataclass(frozen=True, kw_only=True)
class RobotSizes:
    """How much of everything."""

    tasks: tuple[str, ...] = TASKS
    demonstrations: int = 60
    steps: int | None = None
    """None: the recipe's own."""
    episodes: int = 20
    spread: float = 3.0
    workers: int = 2
    limit: int | None = None
    """Steps of an episode that is evaluated; None: the task's own."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What came of it: shares of episodes in which the task was done."""

    stock: float
    wide: float
    blind: float
    swapped: float | None
    """Asked for the other task of the same scene."""
    report: Path
    seconds: float

    @property
    def good(self) -> bool:
        """It does the tasks, it does them by looking, and it does what it is asked."""
        listens = self.swapped is None or self.swapped <= LISTENS
        return self.stock >= DOES and self.wide >= DOES_WIDE and self.wide - self.blind >= LOOKS and listens


def robot(printer: Any, out: Path, sizes: RobotSizes | None = None) -> Moved:
    """Collect, train, evaluate; everything that an earlier demo left there is made anew."""
    from vertebra.simulate.workers import Workers

    began, sizes = time.monotonic(), sizes or RobotSizes()
    folder = out / "robot"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with Workers(sizes.workers) as team:
        _collected(printer, folder / "demonstrations", sizes, team)
        _trained(printer, folder, sizes)
        found = _evaluated(printer, folder, sizes, team)
    return Moved(**found, report=folder / "wide" / "report.html", seconds=time.monotonic() - began)


def _collected(printer: Any, folder: Path, sizes: RobotSizes, team: Workers) -> None:
    from vertebra.simulate.collecting import collect

    made = collect(
        sizes.tasks, folder, episodes=sizes.demonstrations, every=EVERY, workers=team, spread=sizes.spread,
        bare_wrist=True,
    )  # fmt: skip
    rates = ", ".join(f"{task} {made.rate(task):.0%}" for task in sizes.tasks)
    printer.print(f"{sum(made.episodes.values())} demonstrations in {made.seconds:.0f} s; the experts did {rates}")


def _trained(printer: Any, folder: Path, sizes: RobotSizes) -> None:
    """The policy, and its blind twin, which has no images to work on, is done early, and is evaluated while it waits."""
    shared = [f"data.path={folder / 'demonstrations'}"]
    shared += [f"steps={sizes.steps}"] if sizes.steps else []
    runs = [
        Training(recipe=RECIPE, out=folder / "policy", settings=shared),
        Training(
            recipe=RECIPE,
            out=folder / "blind",
            settings=[*shared, *BLIND],
            then=partial(_blind_evaluated, folder, sizes),
        ),
    ]
    for name, found in train_at_once(printer, runs, workers=sizes.workers).items():
        printer.print(f"{name}: error on held-out episodes {found['loss']:.3f} of an action's range of 2")


def _blind_evaluated(folder: Path, sizes: RobotSizes) -> None:
    from vertebra.evaluate.running import evaluate_policy

    evaluate_policy(str(folder / "blind"), _settings(sizes, spread=sizes.spread), folder / "wide-blind", films=False)


def _evaluated(printer: Any, folder: Path, sizes: RobotSizes, team: Workers) -> dict[str, Any]:
    from vertebra.evaluate.running import evaluate_policy

    policy, arms = str(folder / "policy"), (f"blind={folder / 'wide-blind'}", "swapped")
    stock = evaluate_policy(policy, _settings(sizes), folder / "stock", workers=team, films=False)
    wide = evaluate_policy(policy, _settings(sizes, arms, spread=sizes.spread), folder / "wide", workers=team)
    rates = {one.arm.name: one for one in wide.arms}
    shared = [task for task in sizes.tasks if task in SHARED]
    for name, rate in (("stock", stock.arms[0].mean), *((name, one.mean) for name, one in rates.items())):
        printer.print(f"{name:8} {rate.rate:.0%} of {rate.episodes} episodes [{rate.low:.0%} to {rate.high:.0%}]")
    swapped = [rates["swapped"].tasks[task].rate for task in shared]
    return {
        "stock": stock.arms[0].mean.rate,
        "wide": rates["policy"].mean.rate,
        "blind": rates["blind"].mean.rate,
        "swapped": sum(swapped) / len(swapped) if swapped else None,
    }


def _settings(sizes: RobotSizes, arms: tuple[str, ...] = (), **options: Any) -> EvaluationSettings:
    from vertebra.evaluate.settings import EvaluationSettings

    limit = {} if sizes.limit is None else {"limit": sizes.limit}
    return EvaluationSettings(tasks=sizes.tasks, episodes=sizes.episodes, arms=arms, options={**options, **limit})
