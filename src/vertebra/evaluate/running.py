"""`evaluate_policy`: every episode of every arm, in one process or several, kept one by one; then results, films, the page.

The same settings and policy go on in the same folder; anything else there is refused. Workers change nothing but the time:
each thinks on one thread, and the seeds of episodes are theirs whoever runs them.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.errors import ConfigError
from vertebra.evaluate.actor import Actor, options_for
from vertebra.evaluate.arms import Arm, arms_of
from vertebra.evaluate.asked import ASKED
from vertebra.evaluate.earlier import SETTINGS, episodes_of, identity, is_evaluation, settings_there
from vertebra.evaluate.films import films_of
from vertebra.evaluate.page import evaluation_page
from vertebra.evaluate.records import EpisodeRecord, read_record, write_record
from vertebra.evaluate.remote import Served, is_address
from vertebra.evaluate.results import Results
from vertebra.evaluate.rollout import Live, run
from vertebra.evaluate.settings import EvaluationSettings
from vertebra.folders import require_free, state_of, write_file
from vertebra.simulate.kept import opened
from vertebra.simulate.suites import TaskFacts, evaluation_seed, task_facts, view_options
from vertebra.simulate.workers import Workers, working
from vertebra.training.lock import only_locked, only_writer


@dataclass(frozen=True)
class _Batch:
    """Episodes that run side by side."""

    evaluation: int
    policy: str
    arm: Arm
    task: str
    numbers: tuple[int, ...]
    instructions: tuple[str, ...]
    settings: EvaluationSettings


def evaluate_policy(
    policy: Any,
    settings: EvaluationSettings,
    out: str | Path,
    *,
    workers: int | Workers = 1,
    films: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """Run a policy in a closed loop, and write `results.json`, `report.html`, `films/` and each episode to `out`.

    `policy`: a folder's name, the address of a server (http://…, ws://…), or any object with `act(observation, instruction)`
    and `reset()`, which one worker alone can ask. `workers`: how many, or those that are there. An evaluation that was stopped
    goes on where it was. `progress(done, all)` is called as episodes end.
    """
    tasks = [task_facts(name) for name in settings.tasks]
    arms = arms_of(settings.arms, tasks)
    name = policy if isinstance(policy, str) else type(policy).__name__
    count, folder = workers if isinstance(workers, int) else workers.count, Path(out)
    if not isinstance(policy, str) and count > 1:
        raise ConfigError(f"workers={count}: an object lives in this process; give the folder's name, or workers=1")
    if settings.outside != "pass" and any(map(is_address, (name, *(arm.model or "" for arm in arms)))):
        raise ConfigError(
            f"outside={settings.outside!r} is the server's business: vertebra serve --outside; leave it out here"
        )
    with ExitStack() as after:
        after.enter_context(only_writer(folder))
        states = {one: _identity(one) for one in (name, *(arm.model for arm in arms if arm.model))}
        which = _checked(folder, settings, states)
        found = {
            key: kept
            for key in ((arm.name, task.name, n) for task in tasks for arm in arms for n in range(settings.episodes))
            if (kept := read_record(folder, *key, seed=evaluation_seed(key[1], settings.seed, key[2]))) is not None
        }
        held = [record for arm in arms for key, record in episodes_of(arm, settings).items() if key not in found]
        found |= {(one.arm, one.task, one.number): one for one in held}
        evaluation = next(_EVALUATIONS)
        missing = list(_missing(evaluation, name, settings, tasks, arms, found))
        total = len(found) + sum(len(one.numbers) for one in missing)
        team = after.enter_context(working(workers))
        after.callback(ASKED.forget)
        ASKED.begin(evaluation)
        if not isinstance(policy, str):
            ASKED.put(name, Actor(policy, key=settings.key))
        batches, firsts = _each_arm_first(missing)
        for at, (_, records) in enumerate(team.in_order(_run, batches), 1):
            held += records
            found |= {(one.arm, one.task, one.number): one for one in records}
            if at >= firsts:  # a mistake of any arm, before each has had its first episode, leaves nothing
                _keep(folder, which, held)
                held = []
            if progress is not None:
                progress(len(found), total)
        _keep(folder, which, held)
        ordered = [found[arm.name, task.name, n] for task in tasks for arm in arms for n in range(settings.episodes)]
        results = Results.of(name, settings, arms, ordered)
        shown = films_of(folder, results, settings, team) if films else {}
        write_file(folder / "results.json", json.dumps(results.to_json(), indent=1) + "\n")
        write_file(folder / "report.html", evaluation_page(results, shown))
        return results


_EVALUATIONS = itertools.count()
"""Of this process: its workers may serve several."""


def _keep(folder: Path, which: str, records: Sequence[EpisodeRecord]) -> None:
    if not (folder / SETTINGS).is_file():
        write_file(folder / SETTINGS, which)
    for record in records:
        write_record(folder, record)


def _missing(
    evaluation: int,
    policy: str,
    settings: EvaluationSettings,
    tasks: Sequence[TaskFacts],
    arms: Sequence[Arm],
    found: Container[Any],
) -> Iterator[_Batch]:
    """What is still to be run."""
    for task in tasks:
        for arm in arms:
            lacking = [n for n in range(settings.episodes) if (arm.name, task.name, n) not in found]
            for start in range(0, len(lacking), settings.robots):
                numbers = tuple(lacking[start : start + settings.robots])
                words = tuple(arm.instruction(task, tasks, number) for number in numbers)
                yield _Batch(evaluation, policy, arm, task.name, numbers, words, settings)


def _each_arm_first(missing: Sequence[_Batch]) -> tuple[list[_Batch], int]:
    """All batches, one of each arm before the others; and how many those are. A policy that cannot be loaded, or does not
    fit, is found by them and not when hours of another arm have passed."""
    firsts = {one.arm.name: one for one in reversed(missing)}
    begun = [one for one in missing if firsts[one.arm.name] is one]
    return begun + [one for one in missing if firsts[one.arm.name] is not one], len(begun)


def _checked(folder: Path, settings: EvaluationSettings, policies: dict[str, str]) -> str:
    """What says which evaluation a folder holds, held against what is there."""
    mine = json.loads(json.dumps({"settings": settings.to_json(), "policies": policies}))
    path = folder / SETTINGS
    if not path.is_file():
        if not only_locked(folder):
            require_free(folder, overwrite=None)
        return json.dumps(mine, indent=1) + "\n"
    theirs = settings_there(folder)
    differ = [
        f"{name}: there {theirs['settings'].get(name)!r}, now {value!r}"
        for name, value in mine["settings"].items()
        if theirs["settings"].get(name) != value
    ]
    if theirs["policies"] != mine["policies"]:
        differ.append("the policies: another one, or its files have changed")
    if differ:
        raise ConfigError(
            f"`{folder}` holds another evaluation ({'; '.join(differ)}). Name another folder, or delete that one"
        )
    return json.dumps(mine, indent=1) + "\n"


def _identity(name: str) -> str:
    """What tells whether the files of a policy are the same as before."""
    from vertebra.backbone.source import left_by_run

    if is_address(name):
        with closing(Served(name)) as one:
            return one.identity
    if is_evaluation(name):
        return identity(Path(name))
    folder = Path(left_by_run(name)).expanduser()
    if not folder.is_dir():
        return "no folder"
    return state_of(folder)


def _run(work: _Batch) -> list[EpisodeRecord]:
    """What a worker does."""
    ASKED.begin(work.evaluation)
    actor = ASKED.actor(work.arm.model or work.policy, work.arm, work.settings)
    options = options_for(actor, work.settings.options, view_options(work.task))
    live = [
        Live(
            simulation=opened(work.task, options, place=place),
            arm=work.arm.name,
            task=work.task,
            number=number,
            seed=evaluation_seed(work.task, work.settings.seed, number),
            instruction=words,
            frozen=work.arm.frozen,
        )
        for place, (number, words) in enumerate(zip(work.numbers, work.instructions, strict=True))
    ]
    with _one_thread():
        return run(actor, live)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Think on one thread: sums of several threads depend on how many there are."""
    torch = sys.modules.get("torch")
    if torch is None:  # a policy without it
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
