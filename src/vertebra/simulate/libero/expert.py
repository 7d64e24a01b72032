"""The scripted expert of "pick up X and place it in the basket": from where things truly stand to the next action.

    above ─► descend ─► close ─► lift ─► carry ─► lower ─► open
      ▲         │                 │        │                 │
      └─────────┴── off its path ─┴─ lost ─┴── not inside ───┘

It knows positions and no simulator. A push, or an object that slips, leads back to the beginning, so that noise on its
actions shows the way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vertebra.simulate.libero.turns import between

Phase = Literal["above", "descend", "close", "lift", "carry", "lower", "open"]

REACH = (0.05, 0.5)
"""Meters and radians that an action of 1 asks for."""
OPEN, CLOSED = -1.0, 1.0
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
"""The hand's orientation: it looks down, and its fingers close along y, where all objects of the suite are narrow."""
_GAIN, _TURNING = 2.0, 1.0
_TRAVEL = 0.22
"""The hand's height on its way: above the tallest thing that stands about."""
_NEAR, _OFF, _LOST = 0.012, 0.035, 0.05
_CLOSING, _OPENING = 6, 14
_RIM, _ROOM = 0.141, 0.035
"""The basket's height, and how far above it an object passes."""
_LOWEST = 0.11
"""The hand's height in the basket: lower, its palm would touch the rim."""


@dataclass(frozen=True)
class Grasp:
    """Where an object is held, in meters from its middle, and how far its foot is below that."""

    up: float = 0.0
    aside: float = 0.0
    foot: float = 0.01


GRASPS: dict[str, Grasp] = {
    "alphabet_soup": Grasp(up=0.013, aside=-0.004, foot=0.038),
    "tomato_sauce": Grasp(up=0.013, aside=-0.003, foot=0.038),
    "bbq_sauce": Grasp(up=0.027, foot=0.055),
    "ketchup": Grasp(up=0.048, foot=0.073),
    "salad_dressing": Grasp(up=0.048, foot=0.073),
    "milk": Grasp(up=0.036, foot=0.07),
    "orange_juice": Grasp(up=0.036, foot=0.07),
    "chocolate_pudding": Grasp(up=0.004, foot=0.013),
    "butter": Grasp(up=0.006, foot=0.009),
    "cream_cheese": Grasp(up=0.006, foot=0.009),
}
"""The objects of `libero_object`."""


@dataclass(frozen=True, eq=False)
class LiberoScene:
    """Where things stand, in meters; the floor is 0."""

    hand: np.ndarray
    turn: np.ndarray
    """The hand's orientation [3, 3]."""
    thing: np.ndarray
    basket: np.ndarray


class PickAndPlace:
    """One episode of the expert."""

    def __init__(self, grasp: Grasp) -> None:
        self._grasp = grasp
        self.phase: Phase = "above"
        self._waited = 0
        self._held = np.zeros(3)

    def act(self, scene: LiberoScene) -> np.ndarray:
        """[7]: three of the hand's way, three of its turn, the fingers."""
        self._go_on(scene)
        way = _GAIN * (self._target(scene) - scene.hand) / REACH[0]
        turn = _TURNING * between(scene.turn, DOWN) / REACH[1]
        fingers = CLOSED if self.phase in ("close", "lift", "carry", "lower") else OPEN
        return np.concatenate([np.clip(way, -1, 1), np.clip(turn, -1, 1), [fingers]])

    def _go_on(self, scene: LiberoScene) -> None:
        """The phase of this moment."""
        off = self._target(scene) - scene.hand
        beside = float(np.hypot(off[0], off[1]))
        if self.phase in ("lift", "carry", "lower") and np.linalg.norm(scene.thing - scene.hand - self._held) > _LOST:
            self._enter("above")
        elif self.phase == "above" and beside < _NEAR:
            self._enter("descend")
        elif self.phase == "descend":
            if beside > _OFF:
                self._enter("above")
            elif np.linalg.norm(off) < _NEAR:
                self._enter("close")
        elif self.phase == "close" and self._waited >= _CLOSING:
            self._held = scene.thing - scene.hand
            self._enter("lift")
        elif self.phase == "lift" and abs(off[2]) < 2 * _NEAR:
            self._enter("carry")
        elif self.phase == "carry" and beside < _NEAR:
            self._enter("lower")
        elif self.phase == "lower" and abs(off[2]) < _NEAR:
            self._enter("open")
        elif self.phase == "open" and self._waited >= _OPENING:
            self._enter("above")
        self._waited += 1

    def _enter(self, phase: Phase) -> None:
        self.phase, self._waited = phase, 0

    def _target(self, scene: LiberoScene) -> np.ndarray:
        """Where the hand should be in this phase."""
        grasp = scene.thing + np.array((0.0, self._grasp.aside, self._grasp.up))
        foot = self._grasp.up + self._grasp.foot  # below the hand, once it is held
        carried = max(_TRAVEL, _RIM + _ROOM + foot)
        above_basket = scene.basket - self._held * np.array((1, 1, 0))
        match self.phase:
            case "above":
                beside = float(np.linalg.norm(grasp[:2] - scene.hand[:2]))
                height = max(_TRAVEL, grasp[2] + 0.08) if beside > _OFF else grasp[2] + 0.08
                return np.array([*grasp[:2], height])
            case "descend":
                return grasp
            case "close":
                return grasp
            case "lift":
                return np.array([*scene.hand[:2], carried])
            case "carry":
                return np.array([*above_basket[:2], carried])
        return np.array([*above_basket[:2], max(_LOWEST, foot + 0.03)])
