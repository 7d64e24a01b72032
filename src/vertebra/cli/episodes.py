"""The `vertebra data` commands where the data is a set of a robot's episodes: a folder with `meta/info.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer


def is_set(data: str) -> bool:
    """Whether a command was given a folder of episodes, told by its files alone."""
    return (Path(data) / "meta" / "info.json").is_file()


def require_no_options(given: Mapping[str, Any], command: str) -> None:
    """What a language model's data is read with has no effect here."""
    idle = [name for name, value in given.items() if name != "data" and value not in (None, False, [], ())]
    if idle:
        named = ", ".join(f"--{name.rstrip('_').replace('_', '-')}" for name in idle)
        raise typer.BadParameter(f"{named} has no effect on a set of episodes; leave it out of vertebra data {command}")


def check(data: str, *, packing: bool, json: bool, skip: Path | None) -> None:
    """Print the report; exit code 1 where something would stop or spoil a run."""
    if not packing:
        raise typer.BadParameter("--no-packing has no effect on a set of episodes; leave it out")
    from vertebra.cli.output import console, print_json
    from vertebra.episodes.check import check_episodes

    report = check_episodes(data)
    if json:
        print_json(report.to_json())
    else:
        _print(report)
    if skip is not None:
        from json import dumps

        from vertebra.folders import write_file

        write_file(skip, dumps(sorted(report.skip)) + "\n")
        console(stderr=True).print(f"{len(report.skip)} episodes to leave out: {skip}", soft_wrap=True)
    if not report.passed:
        raise typer.Exit(1)


def _print(report: Any) -> None:
    from rich.text import Text

    from vertebra.cli.output import STYLES, console, table

    out, styles = console(), STYLES | {"note": "yellow"}
    facts = f"LeRobot {report.version}, {report.robot or 'no robot named'}, {report.fps} frames a second"
    counts = f"{report.episodes:,} episodes, {report.frames:,} frames, {len(report.tasks):,} tasks"
    out.print(
        Text.assemble((report.source, "bold"), f"  {facts}; {counts}; cameras: {', '.join(report.cameras) or 'none'}")
    )
    shown = table("what", "", "number", "what it is", right=("number",))
    for one in report.findings:
        shown.add_row(Text(one.name), Text(one.status, styles[one.status]), one.value, Text(one.message))
    out.print(shown)
    for one in report.findings:
        for place in one.places:
            out.print(Text.assemble((f"{one.name}: ", styles[one.status]), place), soft_wrap=True)
    numbers = ("min", "q01", "mean", "q99", "max", "std")
    ranges = table("column", "dimension", *numbers, right=numbers)
    for one in report.ranges:
        cells = [f"{getattr(one, name):.4g}" for name in numbers]
        ranges.add_row(Text(one.column), Text(one.name), *cells, style="yellow" if one.dead else None)
    out.print(ranges)
    bad = [one.name for one in report.findings if one.status == "fail"]
    noted = [one.name for one in report.findings if one.status == "note"]
    if report.skip:
        episodes = ", ".join(map(str, sorted(report.skip)[:20])) + (" …" if len(report.skip) > 20 else "")
        out.print(Text(f"episodes to leave out ({len(report.skip)}): {episodes}"), soft_wrap=True)
    good = "nothing would stop or spoil a run" + (f"; worth a look: {', '.join(noted)}" if noted else "")
    out.print(
        Text(f"must be mended, or left out: {', '.join(bad)}" if bad else good, STYLES["fail" if bad else "pass"])
    )
