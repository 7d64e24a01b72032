"""`vertebra export`: a model out of a run's checkpoint, be it whole or in shards; or one in OpenVLA's form again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vertebra.cli.paths import PATH

FORMATS = ("vertebra", "openvla")
app = typer.Typer(add_completion=False)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run; with --format openvla, of a model.", **PATH)],
    out: Annotated[Path, typer.Argument(help="Where the model (or adapter) goes.", **PATH)],
    step: Annotated[int | None, typer.Option(help="Which checkpoint; the newest good one by default.")] = None,
    form: Annotated[
        str, typer.Option("--format", help="vertebra, or openvla for a model that came from there.")
    ] = "vertebra",
    overwrite: Annotated[bool, typer.Option(help="Replace the model that is in the folder.")] = False,
) -> None:
    """Write the model of a run at one of its checkpoints as safetensors; one process, in little memory."""
    from vertebra.cli.output import console
    from vertebra.errors import ConfigError, UnknownNameError

    if form not in FORMATS:
        raise UnknownNameError("format", form, FORMATS)
    if form == "openvla":
        from vertebra.folders import require_free
        from vertebra.interop.load import load
        from vertebra.interop.openvla.write import write_openvla

        if step is not None:
            raise ConfigError(
                "--step is about a run's checkpoints; write the model of one first, then that in this format"
            )
        require_free(out, overwrite=overwrite, reads=[run])
        console().print(f"written to {write_openvla(load(run), out, overwrite=overwrite)}", soft_wrap=True)
        return
    from vertebra.training.recipes import read_run

    read_run(run)  # a wrong name is no reason to import torch
    from vertebra.training.scale.export import export as write

    console().print(f"written to {write(run, out, step=step, overwrite=overwrite)}", soft_wrap=True)
