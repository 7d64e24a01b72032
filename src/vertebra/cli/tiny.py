"""`vertebra tiny`: write a tiny but real checkpoint into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vertebra.cli.paths import PATH

app = typer.Typer(add_completion=False)


@app.command()
def tiny(
    folder: Annotated[
        Path | None, typer.Argument(help="Where to write it; must not exist or be empty.", **PATH)
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="A family, or the name of a tiny checkpoint: llama2, tiny-opt-narrow.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of its config: num_hidden_layers=4. Repeatable.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the model that is in the folder.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the names and exit.")] = False,
) -> None:
    """Write a tiny but real checkpoint: true class, trained tokenizer, the family's habits; loaded like a 7B."""
    from vertebra.cli.output import console, print_unfolded, table

    if list_:
        from vertebra.backbone.tiny import TINY, TINY_ENCODERS

        shown = table("name", "family", "imitates")
        for spec in (*TINY.values(), *TINY_ENCODERS.values()):
            shown.add_row(spec.name, spec.family, spec.hub_name)
        print_unfolded(console(), shown)
        return
    if family is None or folder is None:
        raise typer.BadParameter("give --family and a folder, or --list to see the names")
    name = tiny_name(family)
    overrides = settings_of(set_ or [])

    from vertebra.backbone.tiny import write_tiny

    written = write_tiny(name, folder, seed=seed, overwrite=overwrite, **overrides)
    size = sum(file.stat().st_size for file in written.iterdir())
    console().print(f"{name}: {len(list(written.iterdir()))} files, {size / 1e6:.1f} MB in {written}", soft_wrap=True)


def tiny_name(given: str) -> str:
    """A checkpoint's name from its own or its family's."""
    from vertebra.backbone.tiny import TINY, TINY_ENCODERS
    from vertebra.errors import UnknownNameError

    known = {**TINY, **TINY_ENCODERS}
    if given in known:
        return given
    of_family = [name for name, spec in known.items() if given in (spec.family, name.removeprefix("tiny-"))]
    if not of_family:
        names = [*known, *(spec.family for spec in known.values())]
        raise UnknownNameError("family or tiny checkpoint", given, names, hint="`vertebra tiny --list` shows all.")
    return of_family[0]


def settings_of(pairs: list[str]) -> dict[str, Any]:
    """`name=value` pairs, values read as YAML: numbers, true, lists."""
    import yaml

    from vertebra.errors import ConfigError, shortened

    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(
                f"--set {shortened(repr(pair))} is no setting; write name=value, as in --set num_hidden_layers=4"
            )
        try:
            settings[name] = _value(yaml.safe_load(value))
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # dates that are none, numbers of 5,000 digits
            raise ConfigError(
                f"the value of --set {shortened(repr(pair))} cannot be read; quote it, or close its brackets"
            ) from error
    return settings


def _value(read: Any) -> Any:
    """YAML takes 1e-5 for a word."""
    if isinstance(read, str):
        try:
            return float(read)
        except ValueError:
            return read
    return read
