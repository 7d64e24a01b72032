"""What padding costs on a data set: slots computed for each useful token, by sampler, and a picture of it.

The lengths tell it all; nothing is collated. Knows no models beyond the length that they read.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.loaders.samplers import LengthGrouped, Packed, Shuffled, slots_per_token
from vertebra.data.samples.samples import Samples
from vertebra.errors import DataError, MissingPartError


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Slots for each useful token, and batches an epoch, of each way to make batches."""

    batch_size: int
    capacity: int
    slots: dict[str, float]
    batches: dict[str, int]

    def waste(self, name: str) -> float:
        """The share of the computed positions that is padding."""
        return 1 - 1 / self.slots[name]


def padding_of(samples: Samples, *, batch_size: int = 8, capacity: int | None = None, seed: int = 0) -> Padding:
    """Random, length-grouped and packed batches of these samples. A packed row has as many positions as the longest
    sample, unless a capacity is given."""
    capacity = capacity or int(samples.lengths.max())
    samplers = {
        "random": Shuffled(batch_size, seed=seed),
        "grouped": LengthGrouped(batch_size, seed=seed),
        "packed": Packed(batch_size, capacity, seed=seed),
    }
    plans = {name: sampler.plan(samples, 0) for name, sampler in samplers.items()}
    return Padding(
        batch_size=batch_size,
        capacity=capacity,
        slots={name: slots_per_token(samples, plan) for name, plan in plans.items()},
        batches={name: len(plan) for name, plan in plans.items()},
    )


def write_picture(path: str | Path, lengths: np.ndarray, padding: Padding, *, title: str, limit: int) -> Path:
    """A PNG: the lengths, and the padding before and after grouping and packing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPartError("drawing a picture", "matplotlib", "train") from None
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_lengths(left, lengths, limit)
    _draw_padding(right, padding)
    figure.suptitle(title, parse_math=False)
    return save_picture(figure, path)


def save_picture(figure: Any, path: str | Path) -> Path:
    """A figure of matplotlib as a PNG."""
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a file name in a script that the font lacks
            figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the picture cannot be written to {path}: {error}. Name a .png in a folder that exists"
        ) from error
    return path


def _draw_lengths(axes: Any, lengths: np.ndarray, limit: int) -> None:
    width = max(1, -(-int(np.ptp(lengths) + 1) // 60))  # whole numbers of positions a bar
    edges = np.arange(lengths.min(), lengths.max() + width + 1, width) - 0.5
    axes.hist(lengths, bins=edges, color="#4878a8")
    axes.axvline(float(np.median(lengths)), color="#333333", linestyle=":", label=f"median {np.median(lengths):.0f}")
    if lengths.max() > limit / 3:
        axes.axvline(limit, color="#c0262d", linestyle="--", label=f"the model reads {limit}")
    axes.set_xlabel("positions")
    axes.set_ylabel("samples")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    if len(edges) < 6:
        axes.set_xlim(edges[0] - 3, edges[-1] + 3)
    axes.legend(frameon=False)


def _draw_padding(axes: Any, padding: Padding) -> None:
    names = list(padding.slots)
    axes.barh(names, [1.0] * len(names), color="#4878a8", label="useful")
    axes.barh(names, [slots - 1 for slots in padding.slots.values()], left=1.0, color="#d9a25f", label="padding")
    for at, (name, slots) in enumerate(padding.slots.items()):
        axes.text(slots, at, f" {slots:.2f}  ({padding.waste(name):.0%} waste)", va="center")
    axes.set_xlim(0, max(padding.slots.values()) * 1.7)
    axes.set_xlabel(f"slots for each useful token, batches of {padding.batch_size}")
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
