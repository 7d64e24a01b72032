"""`vertebra train`: a run from its recipe."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vertebra.cli.machine import require_processes
from vertebra.cli.paths import PATH

app = typer.Typer(add_completion=False)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, the name of one in recipes/, or the folder of a run.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the recipe: optim.lr=1e-4. Repeatable.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A file or folder to train on, in place of the recipe's: data.path.", **PATH)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where everything goes; runs/NAME by default.", **PATH)] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest good checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Start anew in a folder that holds a run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything once: data, tokens, a step, a checkpoint.")
    ] = False,
    tiny: Annotated[
        bool, typer.Option(help="The whole recipe on a tiny backbone, in seconds, on a CPU; reports to no tracker.")
    ] = False,
    nproc: Annotated[int, typer.Option(help="So many processes on this machine (torchrun).")] = 1,
) -> None:
    """Train by a recipe: pretrain, finetune, LoRA, policies; exact, and resumed bit for bit."""
    from vertebra.training.recipes import read_recipe

    settings = [*(set_ or []), *([] if data is None else [f"data.path={data}"])]
    config = read_recipe(recipe, settings)  # typos show before anything starts
    require_processes("--nproc", nproc)
    if nproc > 1 and "WORLD_SIZE" not in os.environ:
        raise typer.Exit(_launch(nproc))
    from vertebra.cli.output import console
    from vertebra.training.stop import exit_code
    from vertebra.training.verbs import train as run

    outcome = run(config, out=out, tiny=tiny, resume=resume, overwrite=overwrite, dry_run=dry_run)
    if dry_run:
        return
    first = not int(os.environ.get("RANK", "0"))
    if outcome.stopped:
        if first:
            where = f"stopped at step {outcome.step} of {outcome.steps}"
            console().print(f"{where}; go on: vertebra train {outcome.folder} --resume", soft_wrap=True)
        raise typer.Exit(exit_code(outcome.stopped))  # so that what was to follow a whole training does not
    if first:
        console().print(_summary(outcome), soft_wrap=True)


def _summary(outcome: Any) -> str:
    found = ", ".join(f"{name} {value:.4g}" for name, value in outcome.found.items() if name != "items")
    report = outcome.folder / "report.html"
    lines = [f"{outcome.step} steps" + (f"; evaluation: {found}" if found else ""), f"model   {outcome.model}"]
    return "\n".join([*lines, *([f"report  {report}"] if report.is_file() else [])])


def _launch(nproc: int) -> int:
    """This very command in several processes."""
    from vertebra.cli.launch import launch

    arguments = [a for a, before in zip(sys.argv[1:], sys.argv, strict=False) if "--nproc" not in (a, before)]
    return launch(nproc, [a for a in arguments if not a.startswith("--nproc=")])
