"""How a policy acts: what it does about what is missing or strange, and what becomes of its chunks. It knows no models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from vertebra import config
from vertebra.config import Bound

Some = Annotated[int, Bound(least=1)]


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """Choices of whoever runs a policy; none of them is part of the model."""

    missing_camera: Literal["refuse", "mask"] = "refuse"
    """A camera without an image: refused, or its places are left out, as if nobody could see them."""
    outside: Literal["pass", "clamp", "refuse"] = "pass"
    """Actions beyond everything that the data had: passed on, cut to its extremes, or refused. They are counted."""
    not_a_number: Literal["refuse", "zero"] = "refuse"
    """NaN: refused, or the middle of the range. Counted too."""
    execute: Some | None = None
    """How many actions of a chunk to give, from the first; None: as the model records."""
    ensemble: float | None = None
    """Temporal ensembling with this decay, one action a call; None: off, as reports find lower success with it."""
    steps: Some | None = None
    """Denoising steps of a flow head; None: as the model records."""
    real_time: Literal["guided", "trained"] | None = None
    """Real-time chunking of flow heads: a chunk goes on from the one before it, of which `done=` actions are carried out."""
    delay: Annotated[int, Bound(least=0)] = 0
    """How many more of the old chunk's actions are carried out before the new one is there."""
    keep_prefix: bool = True
    """Keep what is computed of an instruction between two calls, where images come behind it."""
    seed: int | None = None
    """Of the noise that a flow head begins with; None: 0, so that one observation always gives the same actions."""

    def __post_init__(self) -> None:
        config.require_bounds(self)
