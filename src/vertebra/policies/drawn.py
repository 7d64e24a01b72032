"""An observation for a policy that nobody has one for: noise in soft spots for each camera, the mean of all proprio.

Good for asking whether a policy looks at all, and for a golden pair where no episode is at hand; no robot ever saw it.
"""

from __future__ import annotations

import numpy as np

from vertebra.policies.observation import Observation
from vertebra.policies.policy import Policy

SIZE = 96
"""Pixels of a side; cameras are rarely as large as an encoder's input."""


def drawn_observation(policy: Policy, *, seed: int = 0, unnorm_key: str | None = None) -> Observation:
    """One that fits the policy; the same for the same seed."""
    rng = np.random.default_rng(seed)
    images = {name: _spots(rng) for name in policy.record.cameras}
    numbers = policy.record.proprio
    proprio = None
    if numbers is not None or policy.record.frame != "absolute":
        known = policy.statistics(unnorm_key).proprio
        mean = None if known is None else known.mean
        proprio = np.zeros(numbers or policy.record.dims) if mean is None else mean.copy()
    return Observation(images=images, proprio=proprio)


def _spots(rng: np.random.Generator) -> np.ndarray:
    coarse = rng.integers(0, 256, (SIZE // 12, SIZE // 12, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((12, 12, 1), np.uint8))
