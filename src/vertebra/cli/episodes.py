"""The `vertebra data` commands where the data is a set of a robot's episodes: a folder with `meta/info.json`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vertebra.cli.paths import PATH

COMMANDS = ("check", "show", "stats")
"""What is done with episodes by the same name as with other data."""


def handles(command: str, given: Mapping[str, Any], own: Collection[str]) -> bool:
    """Whether the data is a set of episodes, seen by its files alone; then the command is run on it."""
    if command not in COMMANDS or not (Path(given["data"]) / "meta" / "info.json").is_file():
        if command in COMMANDS and all((Path(given["data"]) / part).is_dir() for part in ("meta", "data")):
            from vertebra.errors import DataError

            raise DataError(
                f"`{given['data']}` looks like a set of a robot's episodes (meta/, data/), and has no meta/info.json; fetch or "
                "copy it again"
            )
        return False
    idle = [name for name, value in given.items() if name not in ("data", *own) and value not in (None, False, [], ())]
    if idle:
        named = ", ".join(f"--{name.rstrip('_').replace('_', '-')}" for name in idle)
        raise typer.BadParameter(f"{named} has no effect on a set of episodes; leave it out of vertebra data {command}")
    globals()[command](given["data"], **{name: given[name] for name in own})
    return True


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

    from vertebra.cli.data_findings import print_findings, print_verdict
    from vertebra.cli.output import console, table

    out = console()
    facts = f"LeRobot {report.version}, {report.robot or 'no robot named'}, {report.fps} frames a second"
    counts = f"{report.episodes:,} episodes, {report.frames:,} frames, {len(report.tasks):,} tasks"
    out.print(
        Text.assemble((report.source, "bold"), f"  {facts}; {counts}; cameras: {', '.join(report.cameras) or 'none'}")
    )
    print_findings(out, report.findings)
    numbers = ("min", "q01", "mean", "q99", "max", "std")
    ranges = table("column", "dimension", *numbers, right=numbers)
    for one in report.ranges:
        cells = [f"{getattr(one, name):.4g}" for name in numbers]
        ranges.add_row(Text(one.column), Text(one.name), *cells, style="yellow" if one.dead else None)
    out.print(ranges)
    if report.skip:
        episodes = ", ".join(map(str, sorted(report.skip)[:20])) + (" …" if len(report.skip) > 20 else "")
        out.print(Text(f"episodes to leave out ({len(report.skip)}): {episodes}"), soft_wrap=True)
    print_verdict(out, report.findings, mend="must be mended, or left out")


BARS = "▁▂▃▄▅▆▇█"


def show(data: str, *, count: int | None, html: Path | None, episode: int | None, picture: Path | None) -> None:
    """Print the instruction and the actions of some episodes; film strips as a page, or the first one's as a picture."""
    from rich.text import Text

    from vertebra.cli.output import console, table
    from vertebra.data.look.film_strip import film_strip, names_of, page, ranges, written
    from vertebra.episodes import open_episodes
    from vertebra.errors import DataError

    out, read = console(), open_episodes(data)
    if not read.episodes:
        raise DataError(f"`{read.folder}` has no episode to show; fetch or copy the set again")
    first = 0 if episode is None else read.at(episode)
    chosen = [one.index for one in read.episodes[first : first + (count or 3)]]
    out.print(Text.assemble((str(read.folder), "bold"), f"  {len(read.episodes):,} episodes, LeRobot {read.version}"))
    for number in chosen:
        actions = read.columns(number, ["action"])["action"]
        names = names_of(read, "action")
        heading = f"\nepisode {number}, {len(actions)} frames: {read.sentence(number)}"
        out.print(Text(heading, "bold"), soft_wrap=True)
        shown = table("action", "over time", "least", "mean", "most", right=("least", "mean", "most"))
        columns = actions.reshape(len(actions), -1).T
        for (name, *numbers), values in zip(ranges(actions, names), columns, strict=True):
            shown.add_row(Text(name), Text(sparks(values)), *(f"{one:.4g}" for one in numbers))
        out.print(shown)
    for path, make in ((picture, lambda: film_strip(read, chosen[0])), (html, lambda: page(read, chosen))):
        if path is not None:
            out.print(f"written to {written(path, make())}", soft_wrap=True)


def sparks(values: Any, width: int = 40) -> str:
    """Numbers over time as a line of blocks, each the mean of its stretch; `×` where a number of it is not finite."""
    import numpy as np

    means = [float(part.mean()) for part in np.array_split(np.asarray(values, float), min(width, len(values)))]
    there = [mean for mean in means if np.isfinite(mean)]
    low, high = min(there, default=0.0), max(there, default=0.0)
    step = (high - low) or 1.0
    return "".join(BARS[round((mean - low) / step * (len(BARS) - 1))] if np.isfinite(mean) else "×" for mean in means)


def stats(data: str, *, out: Path, batch_size: int, capacity: int | None, json: bool) -> None:
    """Draw the lengths of the episodes and a histogram of every dimension."""
    if batch_size != 8 or capacity is not None:
        raise typer.BadParameter("--batch-size and --capacity have no effect on a set of episodes; leave them out")
    from vertebra.cli.output import console, print_json, table
    from vertebra.data.look.histograms import numbers_of, write_histograms
    from vertebra.episodes import open_episodes
    from vertebra.errors import DataError

    read = open_episodes(data)
    if not read.episodes:
        raise DataError(f"`{read.folder}` has no episode to count; fetch or copy the set again")
    found = numbers_of(read)
    picture = write_histograms(out, found, title=f"{read.folder.resolve().name}: {len(found.lengths)} episodes")
    if json:
        moments = {name: one.to_json() for name, one in found.moments.items()}
        lengths = [int(one) for one in found.lengths]
        print_json(
            {
                "lengths": lengths,
                "tasks": found.by_task,
                "vectors": moments,
                "left_out": dict(found.left_out),
                "picture": str(picture),
            }
        )
        return
    printer = console()
    shown = table("episodes", "sentence", "frames, mean", right=("episodes", "frames, mean"))
    for sentence, many in found.by_task.items():
        shown.add_row(f"{many:,}", sentence, f"{found.frames_of(sentence):.0f}")
    printer.print(shown)
    for name, many in found.left_out.items():
        frames = "frame is" if many == 1 else "frames are"
        printer.print(
            f"{name}: {many:,} of {len(found.vectors[name]):,} {frames} not finite and left out of its numbers; vertebra data "
            f"check {data} lists the episodes",
            soft_wrap=True,
        )
    for name in found.vectors:
        still = found.dead(name)
        if still:
            printer.print(f"{name}: {', '.join(still)} never moves", soft_wrap=True)
    printer.print(f"written to {picture}", soft_wrap=True)


def convert(
    source: Annotated[
        Path, typer.Argument(help="An older set of LeRobot's, or a file or folder that --schema describes.", **PATH)
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write, in LeRobot's v3.0.", **PATH)],
    schema: Annotated[
        Path | None,
        typer.Option(
            help="Of .npz, HDF5 and RLDS files: a YAML file that says what is where (docs/episodes.md).", **PATH
        ),
    ] = None,
    skip: Annotated[
        str | None, typer.Option(help="Episodes to leave out: 3,17 or the file that data check --skip wrote.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a set that is there.")] = False,
) -> None:
    """Turn a robot's episodes into LeRobot's v3.0: v2.0 and v2.1 without decoding a frame, .npz, HDF5 and RLDS by a schema."""
    from vertebra.cli.output import console
    from vertebra.episodes import open_episodes
    from vertebra.episodes.convert import convert_episodes

    written = open_episodes(convert_episodes(source, out, schema=schema, skip=_numbers(skip), overwrite=overwrite))
    frames = sum(one.length for one in written.episodes)
    console().print(
        f"{out}: {len(written.episodes):,} episodes, {frames:,} frames, {len(written.tasks):,} tasks", soft_wrap=True
    )


def _numbers(skip: str | None) -> list[int]:
    """Numbers with commas, or a JSON file of them."""
    from vertebra.reading import json_of

    if skip is None:
        return []
    try:
        found = json_of(Path(skip).read_bytes()) if Path(skip).is_file() else [int(one) for one in skip.split(",")]
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, int) for one in found):
        raise typer.BadParameter(f"--skip {skip}: write numbers with commas (3,17), or the file of data check --skip")
    return found
