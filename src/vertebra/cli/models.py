"""`vertebra models`: the table of ids, read off plain strings; it needs no torch."""

from __future__ import annotations

from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False)

_BOS = {"bos": "by the tokenizer", "none": "none", "prepend bos": "by the prompt"}


@app.command()
def models(
    family: Annotated[str | None, typer.Option(help="Only the models of this family.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every model that loads by its id: family, hub name, prompt builder, and how it begins and pads."""
    from vertebra.cli.output import console, print_json, print_unfolded, table

    rows = model_rows(family)
    if json:
        print_json(rows)
        return
    shown = table("id", "family", "hub name", "builder", "BOS", "pad")
    for row in rows:
        hub = f"like {row['hub']}" if row["tiny"] else row["hub"]
        shown.add_row(row["id"], row["family"], hub, row["builder"] or "-", row["bos"], row["pad"])
    out = console()
    print_unfolded(out, shown)
    out.print(
        f"{len(rows)} models. BOS: who puts it first. Pad: `own` is the first of the tokenizer's pad, unk and reserved "
        "tokens that ends no answer; where there is none, <PAD> is added.",
        style="dim",
    )


def model_rows(family: str | None = None) -> list[dict[str, Any]]:
    """The rows as plain data."""
    from vertebra.backbone.families.models import FAMILIES, MODELS
    from vertebra.backbone.tiny import TINY
    from vertebra.errors import UnknownNameError

    if family is not None and family not in FAMILIES:
        raise UnknownNameError("family", family, FAMILIES, hint=f"Known: {', '.join(FAMILIES)}.")
    rows = [_row(row.id, row.family, row.hub, tiny=False) for row in MODELS.values()]
    rows += [_row(spec.name, spec.family, spec.hub_name, tiny=True) for spec in TINY.values()]
    return [row for row in rows if family in (None, row["family"])]


def _row(model_id: str, family: str, hub: str, *, tiny: bool) -> dict[str, Any]:
    from vertebra.backbone.families.models import FAMILIES, builder_name
    from vertebra.backbone.registry import tiny_builder
    from vertebra.errors import ConfigError

    facts = FAMILIES[family]
    try:
        builder = tiny_builder(model_id) if tiny else builder_name(facts, model_id)
    except ConfigError:  # an id that names no format: the model loads, a prompt needs `--builder`
        builder = None
    return {
        "id": model_id,
        "family": family,
        "hub": hub,
        "tiny": tiny,
        "builder": builder,
        "anchor": facts.anchor,
        "bos": _BOS[facts.anchor],
        "pad": f"{facts.pad_token} added" if facts.pad_token else "own",
    }
