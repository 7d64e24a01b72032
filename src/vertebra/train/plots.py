"""The pictures of a run, as PNGs: loss, learning rate, throughput, gradient norm, evaluation. Needs matplotlib alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vertebra.errors import MissingPartError

# file -> (title, where the value stands in a row)
_LINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "loss": ("training loss", ("loss",)),
    "learning-rate": ("learning rate", ("lr",)),
    "throughput": ("tokens a second", ("clock", "tokens_per_second")),
    "gradient-norm": ("gradient norm", ("grad_norm",)),
}


def draw(rows: list[dict[str, Any]], folder: Path) -> dict[str, Path]:
    """One PNG a quantity that the rows have; returns title → file."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPartError("the report's pictures", "matplotlib", "train") from None
    found: dict[str, Path] = {}
    for name, (title, path) in _LINES.items():
        points = [(row["step"], _at(row, path)) for row in rows if "loss" in row]
        _line(Figure, title, points, folder / f"{name}.png", found)
    names = dict.fromkeys(name for row in rows for name in row.get("eval", {}) if name != "items")
    for name in names:
        points = [(row["step"], row["eval"].get(name)) for row in rows if "eval" in row]
        _line(Figure, f"evaluation: {name}", points, folder / f"eval-{name}.png", found)
    return found


def _at(row: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        row = row.get(name) if isinstance(row, dict) else None
    return row


def _line(figure_cls: Any, title: str, points: list[tuple[int, Any]], file: Path, found: dict[str, Path]) -> None:
    kept = [(step, value) for step, value in points if value is not None]
    if not kept:
        return
    figure = figure_cls(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*zip(*kept, strict=True), marker="o" if len(kept) < 30 else None, markersize=3)
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
    found[title] = file
