"""`vertebra plan`: memory, sharding, time and cost of a recipe, on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vertebra.cli.paths import PATH

app = typer.Typer(add_completion=False)


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of one in recipes/.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting of the recipe. Repeatable.")] = None,
    gpus: Annotated[int, typer.Option(help="How many GPUs.")] = 1,
    gpu_memory: Annotated[float, typer.Option(help="GB of one GPU.")] = 80.0,
    mfu: Annotated[float, typer.Option(help="The share of a GPU's speed that training reaches.")] = 0.4,
    flops: Annotated[float, typer.Option(help="Operations a second of one GPU, in its precision.")] = 989e12,
    tokens: Annotated[float | None, typer.Option(help="Tokens to train on: gives days.")] = None,
    price: Annotated[float | None, typer.Option(help="Of one GPU hour: gives the cost.")] = None,
    images: Annotated[int, typer.Option(help="Images in a row, where the model sees any.")] = 1,
    picture: Annotated[
        Path | None, typer.Option(help="A picture of the layouts: PNG, or by the suffix.", **PATH)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The data alone.")] = False,
) -> None:
    """Report whether a run fits, how to shard it, and how long it takes; nothing is loaded."""
    from vertebra.backbone.registry import require_name
    from vertebra.cli.output import console, print_json
    from vertebra.training.recipes import read_recipe

    config = read_recipe(recipe, set_ or [])
    if not config.task.for_encoder:
        require_name(config.model.backbone)  # a wrong name is no reason to import torch
    from vertebra.training.planning.plan import picture as draw
    from vertebra.training.planning.plan import plan as run

    made = run(config, gpus=gpus, memory=gpu_memory, mfu=mfu, flops=flops, tokens=tokens, price=price, images=images)
    if picture is not None:
        draw(made, picture)
    if as_json:
        print_json(made.to_json())
        return
    out = console()
    out.print(
        f"{made.model}: {made.parameters:,} parameters{_outside(made)}, {made.trained:,} train (stage {made.stage}); "
        f"{made.rows} {_many(made.rows, 'row')} × {made.length} positions on {_gpus(made.gpus)}",
        soft_wrap=True,
    )
    out.print(_table(made))
    out.print(_verdict(made), soft_wrap=True)


def _outside(made: Any) -> str:
    if not made.outside:
        return ""
    return f" ({made.outside:,} in encoders and projectors, {made.images} {_many(made.images, 'image')} a row)"


def _many(count: int, name: str) -> str:
    return name if count == 1 else f"{name}s"


def _gpus(count: int) -> str:
    return "one GPU" if count == 1 else f"each of {count} GPUs"


def _table(made: Any) -> Any:
    from vertebra.cli.output import table

    parts = ("weights", "gradients", "optimizer", "activations", "logits", "other", "peak")
    shown = table("layout (GB a GPU)", *parts, "fits", right=parts)
    for layout in made.layouts:
        sizes = [f"{getattr(layout, part) / 1e9:.2f}" for part in parts]
        shown.add_row(layout.name, *sizes, "yes" if layout.fits(made.memory) else "no")
    return shown


def _verdict(made: Any) -> str:
    memory = made.memory / 1e9
    if made.chosen is None:
        least = min(layout.peak for layout in made.layouts) / 1e9
        return (
            f"It does not fit in {memory:g} GB: the leanest layout takes {least:.1f} GB. Take more GPUs, fewer rows "
            "(optim.batch), shorter rows (data.block), LoRA (tune.stage=lora) or bfloat16 weights (model.dtype=bfloat16)"
        )
    text = f"It fits in {memory:g} GB with: {made.chosen}. About {made.tokens_per_second:,.0f} tokens/s"
    if made.days is not None:
        text += f"; {made.tokens:.3g} tokens take {time_text(made.days)}".replace("e+", "e")
    return text if made.cost is None else f"{text} and cost {amount_text(made.cost)}"


def time_text(days: float) -> str:
    """A time in the unit that people say it in: seconds, minutes, hours, days or years."""
    for unit, size in (("year", 365.25), ("day", 1.0), ("hour", 1 / 24), ("minute", 1 / 1440), ("second", 1 / 86400)):
        if days >= (2 if unit == "year" else 1) * size:
            count = amount_text(days / size)
            return f"{count} {unit}{'' if count == '1' else 's'}"
    return "less than a second"


def amount_text(amount: float) -> str:
    """Three digits that count, never rounded to nothing, and never with an exponent."""
    if 0 < amount < 0.001:
        return "less than 0.001"
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"
