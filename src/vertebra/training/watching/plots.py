"""The pictures of a run, as PNGs: loss, learning rate, throughput, gradient norm, evaluation. Needs matplotlib alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from vertebra.errors import MissingPartError
from vertebra.folders import write_file

# file -> (title, where the value stands in a row)
_LINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "loss": ("loss", ("loss",)),
    "learning-rate": ("learning rate", ("lr",)),
    "throughput": ("tokens a second", ("clock", "tokens_per_second")),
    "gradient-norm": ("gradient norm", ("grad_norm",)),
}


_COLORS = {"training": "#2166ac", "evaluation": "#d6604d"}


def draw(rows: list[dict[str, Any]], folder: Path) -> dict[str, Path]:
    """One PNG a quantity that the rows have; returns title → file."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPartError("the report's pictures", "matplotlib", "train") from None
    steps = [row for row in rows if "loss" in row]
    evals = [row for row in rows if "eval" in row]
    found: dict[str, Path] = {}
    for name, (title, path) in _LINES.items():
        lines = {"training": [(row["step"], _at(row, path)) for row in steps]}
        if name == "loss":
            lines["evaluation"] = [(row["step"], row["eval"].get("loss")) for row in evals]
        _figure(Figure, title, lines, folder / f"{name}.png", found)
    for name in dict.fromkeys(name for row in evals for name in row["eval"] if name not in ("items", "loss")):
        points = [(row["step"], row["eval"].get(name)) for row in evals]
        _figure(Figure, f"evaluation: {name}", {"evaluation": points}, folder / f"eval-{name}.png", found)
    return found


def _at(row: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        row = row.get(name) if isinstance(row, dict) else None
    return row


def _figure(
    figure_cls: Any, title: str, lines: dict[str, list[tuple[int, Any]]], file: Path, found: dict[str, Path]
) -> None:
    """One picture of all lines that have a point."""
    kept = {name: [p for p in points if p[1] is not None] for name, points in lines.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return
    figure = figure_cls(figsize=(6, 3))
    # room for numbers of six digits: a layout that fits them draws every picture twice
    axes = figure.add_axes((0.11, 0.16, 0.86, 0.73))
    for name, points in kept.items():
        mark = "o" if len(points) < 30 else None
        axes.plot(*zip(*points, strict=True), marker=mark, markersize=3, color=_COLORS[name], label=name)
    axes.set_title(title, loc="left")
    axes.set_xlabel("step", loc="right")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    if len(kept) > 1:
        axes.legend(frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    write_file(file, drawn.getvalue())
    found[title] = file
