"""`vertebra export`: a model out of a run's checkpoint, be it whole or in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vertebra.cli.paths import PATH

app = typer.Typer(add_completion=False)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", **PATH)],
    out: Annotated[Path, typer.Argument(help="Where the model (or adapter) goes.", **PATH)],
    step: Annotated[int | None, typer.Option(help="Which checkpoint; the newest good one by default.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is in the folder.")] = False,
) -> None:
    """Write the model of a run at one of its checkpoints as safetensors; one process, in little memory."""
    from vertebra.cli.output import console
    from vertebra.training.recipes import read_run

    read_run(run)  # a wrong name is no reason to import torch
    from vertebra.training.scale.export import export as write

    console().print(f"written to {write(run, out, step=step, overwrite=overwrite)}", soft_wrap=True)
