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
    from vertebra.errors import UnknownNameError

    if source is None:
        for name, given in (("--record", record), ("--overwrite", overwrite)):
            if given:
                raise typer.BadParameter(f"{name} has no effect without --from")
        acts, entries = _kept(folder)
        if key is not None and key not in entries:
            raise UnknownNameError("data set", key, entries)
        shown = {name: entry for name, entry in entries.items() if key in (None, name)}
    else:
        acts, shown = _attached(folder, source, key, record, overwrite=overwrite)
    if json:
        print_json(shown)
        return
    _print(acts, shown)
    if source is not None:
        from vertebra.policies.attach import BEFORE

        message = f"{', '.join(sorted(shown))} attached; the record as it was before is in {BEFORE}"
        console().print(message, soft_wrap=True)


def _kept(folder: Path) -> tuple[ActionRecord | None, dict[str, Any]]:
    """What a folder has: one of ours, or one of OpenVLA's own, which is only looked at."""
    from vertebra.action.files import read_statistics
    from vertebra.backbone.source import RECORD, left_by_run
    from vertebra.policies.attach import recorded

    where = Path(left_by_run(folder)).expanduser()
    if (where / "config.json").is_file() and not (where / RECORD).is_file():
        return None, read_statistics(where)
    acts = recorded(folder)
    return acts, acts.statistics


def _attached(
    folder: Path, source: Path, key: str | None, record: Path | None, *, overwrite: bool
) -> tuple[ActionRecord, dict[str, Any]]:
    from vertebra import config
    from vertebra.action.files import read_statistics
    from vertebra.policies.attach import attach_statistics

    fields = None if record is None else config.read_mapping(record)
    found = read_statistics(source, key=key)
    return attach_statistics(folder, found, record=fields, overwrite=overwrite), found


def _print(record: ActionRecord | None, entries: dict[str, Any]) -> None:
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
            rule: Any = "quantile"
            if record is not None:
                rule = record.normalization if part == "action" else record.proprio_normalization
            for at in range(moments.dims):
                numbers = [_number(getattr(moments, field), at) for field in NUMBERS]
                own = rule if isinstance(rule, str) else rule[at]
                shown.add_row(part, str(at), *numbers, own if moments.masked[at] else "as it is")
        print_unfolded(out, shown)


def _number(values: Any, at: int) -> str:
    return "" if values is None else f"{values[at]:.4g}"
