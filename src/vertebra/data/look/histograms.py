"""A set of episodes in numbers: how long its episodes are, and over what each dimension of its vectors ranges; as a PNG.

A dimension that never moves, or whose numbers are no numbers, is marked. It knows no models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vertebra.action.counting import Counter
from vertebra.action.statistics import Moments
from vertebra.data.look.film_strip import INKS, names_of
from vertebra.data.look.stats import save_picture
from vertebra.errors import DataError, MissingPartError

if TYPE_CHECKING:
    from vertebra.episodes import EpisodeSet

BARS = 40
MOST = 32
"""Dimensions that are drawn; more are counted all the same."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SetNumbers:
    """What is known of a set without its films."""

    lengths: np.ndarray
    """Frames of each episode."""
    sentences: tuple[str, ...]
    """Of each episode."""
    vectors: Mapping[str, np.ndarray]
    """[frames, dims] of each vector of the whole set."""
    moments: Mapping[str, Moments]
    """Of the frames whose numbers are all finite."""
    left_out: Mapping[str, int]
    """Frames of each vector that are not, where there are any."""
    names: Mapping[str, list[str]]

    @property
    def by_task(self) -> dict[str, int]:
        """Episodes of each sentence."""
        return {one: self.sentences.count(one) for one in dict.fromkeys(self.sentences)}

    def frames_of(self, sentence: str) -> float:
        """Frames of an episode of this sentence, on average."""
        return float(np.mean([n for n, one in zip(self.lengths, self.sentences, strict=True) if one == sentence]))

    def dead(self, vector: str) -> list[str]:
        """Dimensions that never move."""
        found = self.moments[vector].constant
        return [name for name, still in zip(self.names[vector], found, strict=True) if still]


def numbers_of(read: EpisodeSet) -> SetNumbers:
    """All vectors of a set. Numbers that are none (NaN) are left out of the statistics."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in read.numbers}
    for one in read.episodes:
        for name, values in read.columns(one.index).items():
            parts[name].append(np.asarray(values, np.float64).reshape(len(values), -1))
    vectors = {name: np.concatenate(found) for name, found in parts.items() if found}
    moments, left_out = {}, {}
    for name, values in vectors.items():
        counter = Counter(values.shape[1], total=len(values))
        there = values[np.isfinite(values).all(1) & (np.abs(values) <= np.finfo(np.float32).max).all(1)]
        if not len(there):
            raise DataError(
                f"`{read.folder}`: no frame has finite numbers in `{name}`; mend it (vertebra data check lists such episodes)"
            )
        counter.add(there)
        moments[name] = counter.moments()
        if len(there) < len(values):
            left_out[name] = len(values) - len(there)
    return SetNumbers(
        lengths=np.array([one.length for one in read.episodes]),
        sentences=tuple(read.sentence(one.index) for one in read.episodes),
        vectors=vectors,
        moments=moments,
        left_out=left_out,
        names={name: names_of(read, name) for name in vectors},
    )


def write_histograms(path: str | Path, found: SetNumbers, *, title: str) -> Path:
    """A PNG: the lengths of the episodes, then a histogram of each dimension."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPartError("drawing a picture", "matplotlib", "train") from None
    drawn = [(name, at) for name, values in found.vectors.items() for at in range(values.shape[1])][:MOST]
    across = 4
    down = -(-(len(drawn) + 1) // across)
    figure = Figure(figsize=(3 * across, 2.2 * down), layout="constrained")
    FigureCanvasAgg(figure)
    first, *others = np.atleast_1d(figure.subplots(down, across, squeeze=False)).ravel()
    first.hist(found.lengths, bins=min(BARS, max(1, int(np.ptp(found.lengths)) + 1)), color="#333333")
    first.set_title(f"frames of {len(found.lengths)} episodes", fontsize=9)
    inks = dict(zip(found.vectors, INKS * len(found.vectors), strict=False))
    for axes, (name, at) in zip(others, drawn, strict=False):
        _draw(axes, found.vectors[name][:, at], f"{name}: {found.names[name][at]}", inks[name])
    for axes in others[len(drawn) :]:
        axes.axis("off")
    figure.suptitle(title, parse_math=False)
    return save_picture(figure, path)


def _draw(axes: Any, values: np.ndarray, title: str, ink: str) -> None:
    there = values[np.isfinite(values)]
    still = len(there) and there.min() == there.max()
    lost = len(values) - len(there)
    axes.hist(there, bins=BARS, color="#c0262d" if still or lost else ink)
    axes.set_yticks([])
    note = " (never moves)" if still else f" ({lost} are no numbers)" if lost else ""
    axes.set_title(title + note, fontsize=9, parse_math=False)
