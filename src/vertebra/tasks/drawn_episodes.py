"""A small set of episodes, drawn: for `--tiny`, which tries a whole recipe before there is a robot's data.

A square stands in the image of two cameras, and the hand goes to it or away from it, as it is asked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIDE, LENGTH, EPISODES = 64, 12, 8
SENTENCES = ("go to the square", "go away from the square")
CAMERAS = ("observation.images.side", "observation.images.wrist")
_VERSION = 1
"""Raised when what is drawn changes, so that nobody meets an old set."""


def drawn_episodes() -> Path:
    """The folder of the set in the user's cache, made once."""
    from vertebra.backbone.tiny.write import cache_folder
    from vertebra.episodes.writer import EpisodeWriter

    folder = cache_folder() / "tiny" / f"episodes-{_VERSION}"
    if folder.is_dir():
        return folder
    names = ["x", "y", "z", "gripper"]
    with EpisodeWriter(
        folder, fps=10, cameras=dict.fromkeys(CAMERAS, (SIDE, SIDE)), codec="image",
        numbers={"observation.state": names, "action": names},
    ) as writer:  # fmt: skip
        for number in range(EPISODES):
            writer.add(SENTENCES[number % 2], *_episode(number))
    return folder


def _episode(number: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(number)
    square, hand = rng.uniform(-0.8, 0.8, (2, 2))
    towards = 1.0 if number % 2 == 0 else -1.0
    states, actions, seen = [], [], []
    for _ in range(LENGTH):
        move = np.clip(towards * (square - hand), -0.3, 0.3)
        states.append([*hand, 0.0, 1.0])
        actions.append([*move, rng.uniform(-0.05, 0.05), rng.choice([-1.0, 1.0])])
        seen.append(_image(square, hand))
        hand = np.clip(hand + 0.3 * move, -1, 1)
    images = np.stack(seen)
    numbers = {"observation.state": np.array(states, np.float32), "action": np.array(actions, np.float32)}
    return numbers, {CAMERAS[0]: images, CAMERAS[1]: images[:, ::-1, ::-1].copy()}


def _image(square: np.ndarray, hand: np.ndarray) -> np.ndarray:
    """[SIDE, SIDE, 3]: a red square and a blue hand on gray."""
    image = np.full((SIDE, SIDE, 3), 160, np.uint8)
    for place, color, half in ((square, (200, 40, 40), 6), (hand, (40, 60, 200), 3)):
        x, y = ((place + 1) / 2 * (SIDE - 1)).round().astype(int)
        image[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1] = color
    return image
