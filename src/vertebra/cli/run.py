"""`vertebra run`: every row of a file answered by a model, shard by shard; what was stopped goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vertebra.cli.asking import Attn, Base, Device, Dtype, Name, System, Token
from vertebra.cli.paths import PATH

if TYPE_CHECKING:
    from vertebra.bulk.running import Ran

app = typer.Typer(add_completion=False)


@app.command()
def run(
    model: Name,
    rows: Annotated[str, typer.Argument(help="Rows with a prompt or messages: a file, a folder, a pattern.")],
    out: Annotated[Path, typer.Argument(help="The folder of the answers; the same one goes on where it was.", **PATH)],
    shard: Annotated[int, typer.Option(min=1, help="Rows of one file of answers.")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Rows that go through the model at once.")] = 8,
    system: System = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="At most so many, of each answer (256) and of each value of a document (64).")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Draw instead of taking the best; below 1 is calmer.")
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the best that hold this probability.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same answers again, whoever computes them.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Stop at this text; repeatable.")] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Spread the shards over a cluster, or this machine, by Ray.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="With --ray: how many; by default one a GPU, or a core.")
    ] = None,
    base: Base = None,
    dtype: Dtype = None,
    device: Device = None,
    attn: Attn = None,
    token: Token = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Answer every row of a file with a model. Each shard of answers is whole or not there; a second call does the rest."""
    from vertebra.backbone.registry import require_name
    from vertebra.bulk.settings import BulkSettings
    from vertebra.cli.asking import given

    require_name(model)  # before torch is imported for it
    if processes is not None and not ray:
        raise typer.BadParameter("--processes is about --ray; leave it out, or add --ray")
    decoding = given(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed, stop_strings=stop
    )  # fmt: skip
    settings = BulkSettings(shard=shard, batch=batch, system=system, decoding=decoding)
    options = given(base=base, dtype=dtype, device=device, attn=attn, hf_token=token)
    from vertebra.bulk.running import run_rows
    from vertebra.cli.output import console, print_json

    spread = None
    if ray:
        from vertebra.bulk.spread import over_ray

        spread = over_ray(processes)
    screen = console(stderr=True)

    def progress(done: int, total: int) -> None:
        if screen.is_terminal:
            screen.print(f"{done:,} of {total:,} rows", end="\r")

    made = run_rows(model, rows, out, settings, spread=spread, progress=progress, **options)
    if json:
        print_json(
            {"rows": made.rows, "errors": made.errors, "tokens": made.tokens, "files": [str(one) for one in made.files]}
        )
        raise typer.Exit(_code(made))
    console().print(
        f"answered: {made.rows:,} rows, {made.tokens:,} tokens; files in {out}: {len(made.files)}", soft_wrap=True
    )
    if made.errors:
        screen.print(f"rows with an error instead of an answer: {made.errors:,}", style="yellow")
    raise typer.Exit(_code(made))


def _code(made: Ran) -> int:
    """A script must see it where no row has an answer; some that have none are counted, and listed with their errors."""
    return int(0 < made.rows == made.errors)
