"""`vertebra statistics`: the statistics that a policy brings its actions to a robot's units with; shown, or attached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vertebra.cli.paths import PATH

if TYPE_CHECKING:
    from vertebra.action.record import ActionRecord

app = typer.Typer(add_completion=False)


@app.command()
def statistics(
    folder: Annotated[Path, typer.Argument(help="The folder of a policy, or of a run.", **PATH)],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Attach those of this file: dataset_statistics.json, norm_stats.json, stats.json of LeRobot's, or a folder.",
            **PATH,
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The data set to take, or a name for one whose file does not name it.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="For a folder that does not record how it acts: a YAML or JSON file of the record.", **PATH),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace statistics of the same name.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the action statistics of a model folder, or attach some to it. Weights are not touched."""
    from vertebra.cli.output import console, print_json
    from vertebra.policies.attach import BEFORE, attach_statistics, recorded

    if source is None:
        for name, given in (("--record", record), ("--overwrite", overwrite)):
            if given:
                raise typer.BadParameter(f"{name} has no effect without --from")
        shown = recorded(folder)
    else:
        from vertebra import config
        from vertebra.action.files import read_statistics

        fields = None if record is None else config.read_mapping(record)
        found = read_statistics(source, key=key)
        shown = attach_statistics(folder, found, record=fields, overwrite=overwrite)
    entries = {name: entry for name, entry in shown.statistics.items() if source is not None or key in (None, name)}
    if key is not None and key not in shown.statistics:
        from vertebra.errors import UnknownNameError

        raise UnknownNameError("data set", key, shown.statistics)
    if json:
        print_json(entries)
        return
    _print(shown, entries)
    if source is not None:
        console().print(
            f"{', '.join(sorted(found))} attached; the record as it was before is in {BEFORE}", soft_wrap=True
        )


def _print(record: ActionRecord, entries: dict[str, Any]) -> None:
    """A table a data set: a row a dimension."""
    from vertebra.action.statistics import NUMBERS, DatasetStatistics
    from vertebra.cli.output import console, print_unfolded, table

    out = console()
    if not entries:
        out.print("no statistics; attach some with --from", style="yellow")
    for name, entry in entries.items():
        read = DatasetStatistics.of(entry, name)
        counts = [
            f"{n} {what}" for n, what in ((read.num_trajectories, "episodes"), (read.num_transitions, "steps")) if n
        ]
        quantiles = "" if read.quantiles == "unknown" else f", quantiles {read.quantiles}"
        out.print(f"{name}  {', '.join(counts)}{quantiles}", style="bold cyan")
        shown = table("", "dim", *NUMBERS, "normalised", right=("dim", *NUMBERS))
        for part, moments in (("action", read.action), ("proprio", read.proprio)):
            if moments is None:
                continue
            rule = record.normalization if part == "action" else record.proprio_normalization
            for at in range(moments.dims):
                numbers = [_number(getattr(moments, field), at) for field in NUMBERS]
                own = rule if isinstance(rule, str) else rule[at]
                shown.add_row(part, str(at), *numbers, own if moments.masked[at] else "as it is")
        print_unfolded(out, shown)


def _number(values: Any, at: int) -> str:
    return "" if values is None else f"{values[at]:.4g}"
