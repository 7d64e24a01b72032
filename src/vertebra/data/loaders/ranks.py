"""Ranks: who this process is among them, how they agree, and what a rank computes that has nothing left of its own.

Ranks that train together must take equally many steps, else one of them waits for ever. Where a plan is known beforehand
that follows from the plan; a stream's ranks tell each other, block by block. Knows nothing of sources or samplers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from vertebra import log
from vertebra.data.loaders.collate import Collator
from vertebra.errors import ConfigError
from vertebra.sequence.batch import Batch

Exchange = Callable[[Any], list[Any]]
"""Hands a value to all ranks and gives back every rank's, in their order. Each rank must call it equally often."""


def place_among_ranks(rank: int | None, world: int | None) -> tuple[int, int]:
    """This process's rank and the number of ranks: as given, else torchrun's, else alone."""
    rank = int(os.environ.get("RANK", "0") or 0) if rank is None else rank
    world = int(os.environ.get("WORLD_SIZE", "1") or 1) if world is None else world
    if not 0 <= rank < world:
        raise ConfigError(f"rank {rank} of {world}; expected 0 to {world - 1}")
    return rank, world


def exchange_among(world: int) -> Exchange:
    """Through the process group where it has this many ranks. Without one nobody waits, so nobody need agree."""
    if world == 1 or not (dist.is_available() and dist.is_initialized()):
        return _alone
    if dist.get_world_size() != world:
        log.warn_once(
            f"the loader has {world} ranks, the process group {dist.get_world_size()}: its ranks cannot agree on their "
            "number of batches by themselves. Pass `exchange=` (a function over the group of these ranks)"
        )
        return _alone
    return _through_the_group


def weightless(batch: Batch) -> Batch:
    """The same batch, of which nothing counts."""
    made = Batch(batch)
    for name in ("weights", "label_weights"):
        if name in made:
            made[name] = torch.zeros_like(made[name])
    return made


def filler(own: list[Batch], collator: Collator) -> Batch:
    """What a rank computes while others have a batch more: its last one of this block again, or one token of padding.

    It follows from the block alone, so that a resumed run computes the same.
    """
    if own:
        return weightless(own[-1])
    return collator([[{"ids": np.array([collator.pad_id]), "weight": 0.0}]])


def _alone(value: Any) -> list[Any]:
    return [value]


def _through_the_group(value: Any) -> list[Any]:
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found
