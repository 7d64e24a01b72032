"""`vertebra check`: every correctness check on a model, as a table with the number behind each; the exit code tells."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vertebra.checks.results import Report

app = typer.Typer(add_completion=False)

_QUIET_FOR = 10.0
"""Seconds after which a run that nobody watches in a terminal says where it is."""


@app.command()
def check(
    model: Annotated[str | None, typer.Argument(help="An id, a folder, or a hub name.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this check; repeatable, or a,b.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Leave this check out; repeatable, or a,b.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Number type; fp32 sees most, bf16 has a wider bound.")] = None,
    device: Annotated[str | None, typer.Option(help="Where to run: cpu, cuda, cuda:1.")] = None,
    attn: Annotated[str | None, typer.Option(help="An attention kernel, such as eager or sdpa.")] = None,
    builder: Annotated[str | None, typer.Option(help="A prompt builder, where the id names none.")] = None,
    family: Annotated[str | None, typer.Option(help="Whose rules a folder follows; none: read off the model.")] = None,
    token: Annotated[str | None, typer.Option(help="Token for private repositories.", envvar="HF_TOKEN")] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the checks and the fault that each sees, and exit.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hold a model against every correctness check. Exit code 0: all passed; 1: some did not."""
    from vertebra.backbone.registry import require_name

    if model is not None:
        require_name(model)  # before torch is imported for it
    from vertebra.checks.run import check as run
    from vertebra.checks.run import chosen_checks
    from vertebra.cli.output import print_json

    if list_:
        _print_list(chosen_checks(only=_names(only), skip=_names(skip)), json=json)
        return
    if model is None:
        raise typer.BadParameter("give an id, a folder or a hub name; `vertebra models` lists the ids")
    options: dict[str, Any] = {"dtype": dtype, "device": device, "attn": attn, "builder": builder, "family": family}
    with progress() as show:
        report = run(model, only=_names(only), skip=_names(skip), on_start=show, hf_token=token, **options)
    if json:
        print_json(report.to_json())
    else:
        print_report(report)
    if not report.passed:
        raise typer.Exit(1)


def _names(given: list[str] | None) -> list[str]:
    return [name.strip() for part in given or [] for name in part.split(",") if name.strip()]


def print_report(report: Report) -> None:
    """The table, then what to do about each red row, then what was guessed."""
    from rich.text import Text

    from vertebra.checks.results import written
    from vertebra.cli.output import STYLES, console, facts_table, table

    out = console()
    facts = ", ".join(f"{name} {value}" for name, value in report.facts.items() if value is not None)
    out.print(Text.assemble((report.model, "bold"), f"  {facts}"))
    shown = table("check", "", "number", "must be", "what it is", right=("number",))
    for result in report.results:
        number = "" if result.number is None else written(result.number)
        shown.add_row(
            Text(result.name),
            Text(result.status, STYLES[result.status]),
            number,
            result.bound or "",
            Text(result.message, "dim" if result.status == "skip" else ""),
        )
    out.print(shown)
    for result in report.results:
        if result.mend:
            out.print(Text.assemble((f"{result.name}: ", STYLES["fail"]), result.mend))
    if report.guesses:
        out.print("No family describes this model. Read off it instead of known:", style="yellow")
        out.print(facts_table({f"  {name}": value for name, value in report.guesses.items()}))
    counts = {status: sum(r.status == status for r in report.results) for status in ("pass", "fail", "skip")}
    seconds = sum(result.seconds for result in report.results)
    out.print(
        Text(
            f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} do not apply; {seconds:.1f} s",
            STYLES["pass" if report.passed else "fail"],
        )
    )


def _print_list(chosen: list[Any], *, json: bool) -> None:
    from vertebra.cli.output import console, print_json, table

    if json:
        print_json([{"name": c.name, "shows": c.shows, "breaks_on": c.breaks_on, "mend": c.mend} for c in chosen])
        return
    shown = table("check", "shows that", "turns red for")
    for check in chosen:
        shown.add_row(check.name, check.shows, check.breaks_on)
    console().print(shown)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Where a run is: a line that moves in a terminal; elsewhere plain lines, once it has lasted for a while."""
    if sys.stderr.isatty():
        from vertebra.cli.output import console

        with console(stderr=True).status("") as status:
            yield lambda name, number, total: status.update(f"{number} of {total}: {name}")
        return
    start = time.monotonic()

    def show(name: str, number: int, total: int) -> None:
        if time.monotonic() - start > _QUIET_FOR:
            print(f"{number} of {total}: {name}", file=sys.stderr, flush=True)

    yield show
