"""An episode as one picture: frames of each camera in a row, and the actions drawn under them along the same time.

    camera    ▣ ▣ ▣ ▣ ▣ ▣ ▣ ▣
    wrist     ▣ ▣ ▣ ▣ ▣ ▣ ▣ ▣
    action    ╱╲__╱──╲___/‾‾        one line a dimension, with its name and its range

`page` puts several episodes on a page of HTML. Any set with LeRobot's format; it knows no models.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from vertebra.errors import DataError, UnknownNameError
from vertebra.webpage import data_url, escaped, webpage

if TYPE_CHECKING:
    from vertebra.episodes import EpisodeSet

SIDE, GAP, HIGH, MARGIN = 128, 4, 140, 4
"""Pixels: a frame's height, between frames, the drawing of actions, around it."""
INKS = ("#2f6db3", "#c0562d", "#3c8a4e", "#8a4ea3", "#b38a1e", "#3a8f99", "#a33c5c", "#6b6b6b")
STYLE = """
main { max-width: 1200px; }
h2 { margin-top: 32px; } img { border: 1px solid var(--line); }
td, th { text-align: right; } td:first-child, th:first-child { text-align: left; }
"""


def film_strip(read: EpisodeSet, episode: int, *, action: str = "action", count: int = 8) -> Image.Image:
    """`count` frames, evenly spread over the episode, and its actions."""
    actions = read.columns(episode, [action])[action].reshape(-1, np.prod(read.numbers[action].shape, dtype=int))
    chosen = spread_over(len(actions), count)
    rows = [_row(read.frames(episode, camera, chosen)) for camera in read.cameras]
    wide = max([row.width for row in rows], default=count * (SIDE + GAP))
    high = sum(row.height + GAP for row in rows)
    strip = Image.new("RGB", (wide, high + HIGH), "white")
    at = 0
    for camera, row in zip(read.cameras, rows, strict=True):
        strip.paste(row, (0, at))
        ImageDraw.Draw(strip).text((MARGIN, at + MARGIN), camera, fill="white", stroke_width=1, stroke_fill="black")
        at += row.height + GAP
    _draw_actions(strip, at, actions, names_of(read, action), chosen)
    return strip


def spread_over(length: int, count: int) -> list[int]:
    """Up to `count` frames from the first to the last, each once."""
    return sorted({round(at) for at in np.linspace(0, length - 1, min(count, length)).tolist()})


def names_of(read: EpisodeSet, vector: str) -> list[str]:
    """What a vector's dimensions are called, or their numbers."""
    if vector not in read.numbers:
        raise UnknownNameError("vector of the set", vector, read.numbers)
    known = read.numbers[vector]
    count = int(np.prod(known.shape, dtype=int))
    names = [str(name) for name in known.names or ()]
    return names if len(names) == count else [str(number) for number in range(count)]


def page(read: EpisodeSet, episodes: Sequence[int], *, action: str = "action", count: int = 8) -> str:
    """A page of HTML with a strip of each episode, and what its actions range over."""
    bodies = []
    for episode in episodes:
        actions = read.columns(episode, [action])[action]
        file = io.BytesIO()
        film_strip(read, episode, action=action, count=count).save(file, "PNG")
        lines = "".join(
            f"<tr><td>{escaped(name)}</td>" + "".join(f"<td>{number:.4g}</td>" for number in numbers) + "</tr>"
            for name, *numbers in ranges(actions, names_of(read, action))
        )
        bodies.append(
            f"<h2>episode {episode}: {escaped(read.sentence(episode))}</h2><p>{len(actions)} frames, "
            f"{len(actions) / read.fps:.1f} s</p><img alt='frames and actions' src='{data_url(file.getvalue())}'>"
            f"<table><tr><th>{escaped(action)}</th><th>least</th><th>mean</th><th>most</th></tr>{lines}</table>"
        )
    facts = f"{read.version}, {len(read.episodes)} episodes at {read.fps} frames a second, {len(read.tasks)} tasks"
    head = f"<h1>{escaped(read.folder)}</h1><p>{escaped(facts)}</p>"
    return webpage(str(read.folder), head + "".join(bodies), style=STYLE)


def written(path: str | Path, made: Image.Image | str) -> Path:
    """A strip as a PNG, or a page."""
    path = Path(path)
    try:
        path.write_text(made, encoding="utf-8") if isinstance(made, str) else made.save(path)
    except (OSError, ValueError) as error:
        raise DataError(f"`{path}` cannot be written: {error}; name a .png or .html in a folder that exists") from error
    return path


def ranges(values: np.ndarray, names: Sequence[str]) -> list[tuple[str, float, float, float]]:
    """(name, least, mean, most) of each dimension, of its numbers that are finite; NaN, where none is."""
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    found = []
    for name, one in zip(names, flat.T, strict=True):
        there = one[np.isfinite(one)] if np.isfinite(one).any() else np.full(1, np.nan)
        found.append((name, float(there.min()), float(there.mean()), float(there.max())))
    return found


def _row(frames: np.ndarray) -> Image.Image:
    images = [Image.fromarray(frame) for frame in frames]
    images = [image.resize((max(1, round(image.width * SIDE / image.height)), SIDE)) for image in images]
    row = Image.new("RGB", (sum(image.width + GAP for image in images), SIDE), "white")
    at = 0
    for image in images:
        row.paste(image, (at, 0))
        at += image.width + GAP
    return row


def _draw_actions(
    strip: Image.Image, top: int, actions: np.ndarray, names: Sequence[str], chosen: Sequence[int]
) -> None:
    """Each dimension between its own least and most, so that small ones are seen beside large ones."""
    pen = ImageDraw.Draw(strip)
    actions = np.asarray(actions, np.float64).reshape(len(actions), -1)
    there = np.isfinite(actions)
    low = np.where(there, actions, np.inf).min(0)
    high = np.where(there, actions, -np.inf).max(0)
    room = strip.width - 2 * MARGIN
    x = MARGIN + np.arange(len(actions)) / max(1, len(actions) - 1) * room
    inner = HIGH - 5 * MARGIN - 12
    for frame in chosen:
        pen.line((x[frame], top, x[frame], top + inner + 2 * MARGIN), fill="#e4e4e4")
    moves = high > low
    scaled = (np.where(there, actions, 0) - np.where(moves, low, 0)) / np.where(moves, high - low, 1)
    y = top + MARGIN + (1 - np.where(moves, scaled, 0.5)) * inner
    left = MARGIN
    for number, name in enumerate(names):
        ink = INKS[number % len(INKS)]
        for run in np.split(np.arange(len(actions)), np.flatnonzero(np.diff(there[:, number])) + 1):
            if there[run[0], number]:  # where numbers are none, the line has a gap
                _draw_line(pen, x[run], y[run, number], ink)
        lost = int((~there[:, number]).sum())
        span = f"{low[number]:.3g} … {high[number]:.3g}" if there[:, number].any() else "no finite number"
        label = f"{name} {span}" + (f" ({lost} not finite)" if lost else "")
        pen.text((left, top + HIGH - 3 * MARGIN - 8), label, fill=ink)
        left += int(pen.textlength(label)) + 3 * MARGIN


def _draw_line(pen: ImageDraw.ImageDraw, x: np.ndarray, y: np.ndarray, ink: str) -> None:
    if len(x) > 1:
        pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=ink, width=2)
    else:
        pen.ellipse((x[0] - 2, y[0] - 2, x[0] + 2, y[0] + 2), fill=ink)
