"""`vertebra sim tasks|collect|eval`: simulators of robots; their experts' demonstrations; policies in a closed loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vertebra.cli.machine import require_processes
from vertebra.cli.paths import PATH

if TYPE_CHECKING:
    from vertebra.evaluate.results import Rate, Results
    from vertebra.simulate.collecting import Collected, Progress

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Simulators: tasks, demonstrations, evaluation.")

Tasks = Annotated[
    str,
    typer.Option(
        "--tasks", help="Names separated by commas; a suite's name (`mt10`, `libero_object`) stands for all its tasks."
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Pixels of a side of the images; by default as in a policy's demonstrations, else 64 in Meta-World, 128 in "
        "LIBERO."
    ),
]
Cameras = Annotated[
    str | None,
    typer.Option(
        help="Cameras separated by commas: side, gripperPOV, corner2 …; agentview, robot0_eye_in_hand in LIBERO."
    ),
]
Spread = Annotated[float, typer.Option(help="How much wider than stock the range is in which objects are placed.")]
Shared = Annotated[
    bool,
    typer.Option("--shared", help="Begin in the scene that a task shares with its partner: the words alone decide."),
]
Jitter = Annotated[float, typer.Option(help="Degrees by which the cameras are turned, anew in each episode.")]
Colors = Annotated[bool, typer.Option("--colors", help="New colors of table, floor and walls in each episode.")]
BareWrist = Annotated[
    bool | None,
    typer.Option(
        "--bare-wrist/--whole-wrist",
        help="The wrist's image without the arm's links, or with them; by default as in a policy's demonstrations.",
    ),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes; the result is the same for any number.")]
Limit = Annotated[int | None, typer.Option(help="Steps of an episode; by default the task's own.")]


@app.command()
def tasks(
    suite: Annotated[
        str, typer.Option(help="Which set of tasks: metaworld, mt10, libero, libero_object, libero_object_swap …")
    ] = "metaworld",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the tasks of a simulator: instruction, steps of an episode, success of the scripted expert."""
    from dataclasses import asdict

    from vertebra.cli.output import console, print_json, print_unfolded, table
    from vertebra.simulate.suites import task_facts, task_names

    rows = [task_facts(name) for name in task_names(suite)]
    if json:
        print_json([asdict(row) for row in rows])
        return
    shown = table("task", "instruction", "steps", "expert", "spread", "partner", right=("steps", "expert", "spread"))
    for row in rows:
        rate = "" if row.expert is None else f"{row.expert:.0%}"
        shown.add_row(row.name, row.instruction, str(row.limit), rate, f"{row.spread:g}", row.partner or "")
    print_unfolded(console(), shown)


@app.command()
def collect(
    tasks: Tasks,
    out: Annotated[Path, typer.Option(help="The folder to write, a data set of LeRobot's v3.0.", **PATH)],
    episodes: Annotated[int, typer.Option(min=1, help="Demonstrations of each task.")] = 60,
    size: Size = None,
    cameras: Cameras = None,
    noise: Annotated[
        float, typer.Option(min=0.0, help="The scale of the bursts of noise on the expert's actions.")
    ] = 0.5,
    every: Annotated[
        int, typer.Option(min=1, help="Draw every n-th step alone; each step keeps its own state and action.")
    ] = 1,
    spread: Spread = 1.0,
    shared: Shared = False,
    jitter: Jitter = 0.0,
    colors: Colors = False,
    bare_wrist: BareWrist = None,
    limit: Limit = None,
    workers: Workers = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of the whole set.")] = 0,
    codec: Annotated[str, typer.Option(help="Of the videos: h264, av1; or image.")] = "h264",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Let the scripted experts show each task, and write what they saw and did. Failures are counted, and left out."""
    require_processes("--workers", workers)
    from vertebra.simulate.collecting import collect as collected

    options = _options(
        size=size, cameras=cameras, spread=spread, shared=shared, jitter=jitter, colors=colors, bare_wrist=bare_wrist,
        limit=limit,
    )  # fmt: skip
    choices: dict[str, Any] = {"noise": noise, "every": every, "workers": workers, "seed": seed, "codec": codec}
    with _Line() as line:
        made = collected(named(tasks), out, episodes=episodes, progress=line.show, **choices, **options)
    _show_collected(made, json=json)


@app.command(name="eval")
def evaluate(
    model: Annotated[
        str, typer.Argument(help="The folder of a policy or of a run; or where one is served: http://…, ws://….")
    ],
    tasks: Tasks,
    out: Annotated[Path, typer.Option(help="The folder to write: results, a page with films, every episode.", **PATH)],
    episodes: Annotated[int, typer.Option(min=1, help="Of each task; 50 or more, for a rate to be believed.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of the whole; its episodes are none that demonstrations had.")] = 0,
    arms: Annotated[
        str,
        typer.Option(
            help="On the same seeds: swapped, paraphrase, frozen, chunk=K, ensemble=D, NAME=MODEL (blind=DIR); or NAME=FOLDER "
            "of an evaluation, whose episodes are not run again."
        ),
    ] = "",
    size: Size = None,
    cameras: Cameras = None,
    spread: Spread = 1.0,
    shared: Shared = False,
    jitter: Jitter = 0.0,
    colors: Colors = False,
    bare_wrist: BareWrist = None,
    limit: Limit = None,
    workers: Workers = 1,
    robots: Annotated[
        int, typer.Option(min=1, help="Simulations side by side in a process; the policy is asked once for all.")
    ] = 1,
    outside: Annotated[str, typer.Option(help="Actions beyond the policy's data: pass, clamp, or refuse.")] = "pass",
    key: Annotated[str | None, typer.Option("--key", help="The data set whose units the actions are in.")] = None,
    films: Annotated[
        bool, typer.Option("--films/--no-films", help="Draw a success and a failure of each task.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a policy in a closed loop: success with intervals, arms on the same seeds, films. What was stopped goes on."""
    from vertebra import config
    from vertebra.backbone.registry import require_name
    from vertebra.evaluate.remote import is_address
    from vertebra.evaluate.settings import EvaluationSettings

    require_processes("--workers", workers)
    if not is_address(model):
        require_name(model)  # before torch is imported for it
    options = _options(
        size=size, cameras=cameras, spread=spread, shared=shared, jitter=jitter, colors=colors, bare_wrist=bare_wrist,
        limit=limit,
    )  # fmt: skip
    choices = {
        "tasks": named(tasks),
        "episodes": episodes,
        "seed": seed,
        "robots": robots,
        "outside": outside,
        "key": key,
    }
    choices["arms"] = [part.strip() for part in arms.split(",") if part.strip()]
    settings = replace(config.build(EvaluationSettings, choices, where="the options"), options=options)
    from vertebra.evaluate.running import evaluate_policy

    with _Line() as line:
        results = evaluate_policy(
            model, settings, out, workers=workers, films=films,
            progress=lambda done, total: line.print(f"{done}/{total} episodes"),
        )  # fmt: skip
    _show_results(results, out, json=json)


def named(given: str) -> list[str]:
    """The tasks that a list names."""
    from vertebra.simulate.suites import suites, task_names

    names = [part.strip() for part in given.split(",") if part.strip()]
    return [task for name in names for task in (task_names(name) if name in suites() else (name,))]


def _options(**given: Any) -> dict[str, Any]:
    """How tasks are opened; what a simulator has as a default is left to it, for not every one has every option."""
    defaults: dict[str, Any] = {
        "size": None,
        "cameras": None,
        "limit": None,
        "spread": 1.0,
        "shared": False,
        "jitter": 0.0,
        "colors": False,
        "bare_wrist": None,
    }
    given["cameras"] = _cameras(given["cameras"])
    return {name: value for name, value in given.items() if name not in defaults or value != defaults[name]}


def _cameras(given: str | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(part.strip() for part in given.split(",") if part.strip())


class _Line:
    """One line that is written over, where somebody looks at it."""

    def __enter__(self) -> _Line:
        from vertebra.cli.output import console

        self._out = console(stderr=True)
        return self

    def show(self, count: Progress) -> None:
        planned, tried = count.planned * len(count.seeds), sum(count.attempts.values())
        rate = count.images / max(count.seconds, 1e-9)
        self.print(f"{count.kept}/{planned} episodes of {tried} attempts, {count.steps:,} steps, {rate:.0f} images/s")

    def print(self, text: str) -> None:
        """Written over by the next; nothing where nobody looks."""
        if self._out.is_terminal:
            self._out.print(text, end="\r")

    def __exit__(self, *error: object) -> None:
        if self._out.is_terminal:
            self._out.print()


def _show_collected(made: Collected, *, json: bool) -> None:
    from vertebra.cli.output import console, print_json, table

    if json:
        print_json(made.to_json())
        return
    shown = table("task", "episodes", "attempts", "expert", right=("episodes", "attempts", "expert"))
    for task, kept in made.episodes.items():
        shown.add_row(task, str(kept), str(made.attempts[task]), f"{made.rate(task):.0%}")
    out = console()
    out.print(shown)
    rate = made.images / max(made.seconds, 1e-9)
    out.print(f"{made.steps:,} steps, {made.images:,} images drawn in {made.seconds:.0f} s ({rate:.0f} a second)")
    broken = sum(made.broken.values())
    if broken:
        out.print(f"the simulator failed in {broken} attempts, which are left out", style="yellow")
    out.print(f"written to {made.folder}", soft_wrap=True)


def _show_results(results: Results, out: Path, *, json: bool) -> None:
    from vertebra.cli.output import console, print_json, print_unfolded, table

    if json:
        print_json(results.to_json())
        return
    screen = console()
    names = [one.arm.name for one in results.arms]
    shown = table("task", *names)
    for task in results.settings.tasks:
        shown.add_row(task, *(_rate(one.tasks[task]) for one in results.arms))
    shown.add_row("mean of tasks", *(_rate(one.mean) for one in results.arms), style="bold")
    print_unfolded(screen, shown)
    for one in results.arms:
        if one.paired is not None:
            pair = one.paired
            screen.print(
                f"{one.arm.name}: {100 * pair.difference:+.0f} points for the policy "
                f"[{100 * pair.low:+.0f} to {100 * pair.high:+.0f}], McNemar's p {pair.p:.3g}"
            )
    for one in results.arms:
        notes = {"numbers beyond the policy's data": one.outside, "episodes refused": one.refused}
        notes["failures of the simulator, left out"] = one.broken
        noted = [f"{count} {what}" for what, count in notes.items() if count]
        if noted:
            screen.print(f"{one.arm.name}: {'; '.join(noted)}", style="yellow")
    first = results.arms[0]
    if first.milliseconds is not None:
        screen.print(f"a decision takes {first.milliseconds:.1f} ms (95 % within {first.slowest:.1f})")
    if first.change is not None:
        screen.print(f"from one action to the next its numbers change by {first.change:.3f}")
    screen.print(f"written to {out / 'report.html'}", soft_wrap=True)


def _rate(rate: Rate) -> str:
    return f"{100 * rate.rate:.0f} % [{100 * rate.low:.0f}–{100 * rate.high:.0f}]"
