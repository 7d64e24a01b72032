"""A trace in a terminal: what went in, what was seen, what was called, what came out. It draws, and computes nothing."""

from __future__ import annotations

from itertools import groupby, zip_longest

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from vertebra.decode.tracing.pictures import MaskPicture
from vertebra.decode.tracing.sheets import TraceSheet
from vertebra.decode.tracing.trace import StepTrace, Trace
from vertebra.decode.tracing.words import MEANS, line_place, size, span, story, time_of, what_went_in

_SHADES = " ░░▒▒▓▓███"
_WIDEST = 48


def print_trace(trace: Trace, out: Console, *, details: int = 2) -> None:
    """Print all of it; of the first `details` steps everything that was called."""
    out.print(Text.assemble((trace.model, "bold"), "  ", ", ".join(f"{k} {v}" for k, v in trace.facts.items())))
    out.print(Text.assemble(("settings ", "bold"), trace.settings))
    out.print(Text.assemble(("prompt   ", "bold"), f"{len(trace.prompt)} positions  ", _prompt(trace)))
    for number, sheet in enumerate(trace.pages, 1):
        out.print(_sheet(sheet, number))
    out.print()
    out.print(_table(trace))
    for step in trace.steps[:details]:
        out.print()
        out.print(_details(step))
    out.print()
    out.print(Text.assemble(("text    ", "bold"), trace.text))
    out.print(Text.assemble(("stopped ", "bold"), f"{trace.stop_reason}: {trace.stop_means}"))


def _prompt(trace: Trace) -> Text:
    """The prompt's tokens, runs of slots folded."""
    parts = Text()
    for segment, group in groupby(trace.prompt, key=lambda token: token.segment):
        tokens = list(group)
        if segment is None:
            parts.append("|".join(token.text for token in tokens), "dim")
        else:
            parts.append(f" [{len(tokens)} × {segment}] ", "blue")
    return parts


def _sheet(sheet: TraceSheet, number: int) -> Table:
    """The lines of a page with the positions that they take."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (f"page {number}", "box", "line"):
        table.add_column(name, overflow="fold")
    for line in sheet.lines:
        box = "no box" if line.box is None else " ".join(f"{number:g}" for number in line.box)
        text = Text("(what the question is about)", "dim") if line.asked else Text(line.text)
        table.add_row(Text(line_place(line), "blue"), box, text)
    return table


def _table(trace: Trace) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "goes in", "positions", "cache", "sees", "token", "prob", "next best", "time"):
        table.add_column(name, justify="right" if name in ("step", "prob", "time") else "left", overflow="fold")
    for step in trace.steps:
        others = [one for one in step.candidates if one.id != step.id][:3]
        best = "  ".join(f"{one.text} {one.probability:.0%}" for one in others)
        last = step.passes[-1] if step.passes else None
        table.add_row(
            str(step.index),
            Text(" + ".join(what_went_in(one) for one in step.passes)),
            " + ".join(span(one.positions) for one in step.passes),
            "" if last is None else f"{step.passes[0].cached} → {last.cached_after} ({size(last.cache_bytes)})",
            "" if last is None else " ".join(f"{one.visible}/{one.queries * one.keys}" for one in last.masks),
            Text(step.text if step.id is not None else "nothing", "bold green" if step.id is not None else "red"),
            f"{step.probability:.0%}",
            Text(best),
            time_of(step.seconds),
        )
    return table


def _details(step: StepTrace) -> Group:
    """Everything that one step called, and its masks."""
    calls = Table(box=None, pad_edge=False, show_header=False)
    calls.add_column(style="cyan", no_wrap=True)
    calls.add_column(justify="right", no_wrap=True)
    calls.add_column(overflow="fold")
    calls.add_column(style="dim", overflow="fold")
    for event in step.events:
        calls.add_row(event.name, time_of(event.seconds), Text(event.detail), MEANS.get(event.name, ""))
    parts: list[object] = [Text(f"step {step.index}  {story(step)}", "bold"), calls]
    for one in step.passes[:1]:
        parts += [_picture(mask) for mask in one.masks if mask.queries > 1]
    return Group(*parts)  # type: ignore[arg-type]


def _picture(mask: MaskPicture) -> Text:
    """Who saw whom: a line a query, two signs a key where there is room."""
    cells = mask.cells if max(len(mask.cells), len(mask.cells[0])) <= _WIDEST else _coarser(mask.cells)
    wide = 2 if len(cells[0]) <= _WIDEST else 1
    lines = [f"  who sees whom, {mask.layers} layers ({mask.caption})"]
    lines += ["  " + "".join((_SHADES[int(cell)] if cell != "0" else "·") * wide for cell in line) for line in cells]
    return Text("\n".join(lines))


def _coarser(cells: list[str]) -> list[str]:
    """Four cells as one, as dark as they are together."""
    pairs = zip_longest(cells[::2], cells[1::2], fillvalue="")
    drawn = []
    for upper, lower in pairs:
        blocks = [upper[at : at + 2] + lower[at : at + 2] for at in range(0, len(upper), 2)]
        drawn.append("".join(str(-(-sum(map(int, block)) // len(block))) for block in blocks))
    return drawn
