"""`vertebra merge`: an adapter into its base, as a plain Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vertebra.cli.paths import PATH

app = typer.Typer(add_completion=False)


@app.command()
def merge(
    base: Annotated[str, typer.Argument(help="The base it was trained on: an id, a folder or a hub name.")],
    adapter: Annotated[
        Path, typer.Argument(help="The folder of an adapter, of the run that left it, or PEFT's.", **PATH)
    ],
    out: Annotated[Path, typer.Argument(help="Where the merged model goes.", **PATH)],
    dtype: Annotated[str | None, typer.Option(help="What it is written in; that of the base by default.")] = None,
    bound: Annotated[
        float | None, typer.Option(help="Largest logit difference allowed, as a share of the largest logit.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the model that is in the folder.")] = False,
) -> None:
    """Merge a LoRA adapter in fp32, cast, write, and report how far the logits moved."""
    from vertebra.backbone.registry import require_name
    from vertebra.cli.output import console
    from vertebra.errors import CheckpointError

    require_name(base)  # a wrong name is no reason to import torch
    if not adapter.is_dir():
        raise CheckpointError(f"there is no folder `{adapter}`; name the one of an adapter, as in runs/NAME/adapter")
    from vertebra.tune.merge import merge as run

    report = run(base, adapter, out, dtype=dtype, bound=bound, overwrite=overwrite)
    console().print(f"{report}\nwritten to {out}", soft_wrap=True)
