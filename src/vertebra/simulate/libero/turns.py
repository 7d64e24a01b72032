"""Rotations as LIBERO's policies are given them: a quaternion's axis times its angle; and the turn between two orientations."""

from __future__ import annotations

import math

import numpy as np


def axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """[3] of a unit quaternion (x, y, z, w), as robosuite computes it: −q and q differ by a whole turn."""
    w = float(np.clip(quaternion[3], -1.0, 1.0))
    sine = math.sqrt(1.0 - w * w)
    if math.isclose(sine, 0.0):
        return np.zeros(3)
    return np.asarray(quaternion[:3]) * 2.0 * math.acos(w) / sine


def between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """[3]: the axis times the angle (0 … π) that turns one orientation [3, 3] into another, about the world's axes."""
    turn = end @ start.T
    angle = math.acos(float(np.clip((np.trace(turn) - 1) / 2, -1.0, 1.0)))
    if angle < 1e-9:
        return np.zeros(3)
    if math.pi - angle < 1e-6:  # the skew part vanishes: the axis is a column of (turn + 1) / 2
        columns = (turn + np.eye(3)) / 2
        axis = columns[:, int(np.argmax(np.diag(columns)))]
        return angle * axis / np.linalg.norm(axis)
    skew = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    return angle * skew / (2 * math.sin(angle))
