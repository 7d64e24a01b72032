"""`vertebra report`: the page and pictures of a run, drawn anew from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vertebra.cli.paths import PATH

app = typer.Typer(add_completion=False)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A run's folder.", **PATH)]) -> None:
    """Write report.html and its PNGs from a run's metrics; also while it runs."""
    from vertebra.cli.output import console
    from vertebra.training.watching.report import write_report

    console().print(str(write_report(folder)), soft_wrap=True)
