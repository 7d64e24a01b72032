"""How much one message may hold; what is beyond is refused before memory is taken for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits of one message."""

    size: int = 32 << 20
    """Bytes of the message."""
    items: int = 400_000
    """Values of all lists and mappings together: a small message can hold very many."""
    depth: int = 32
    """Lists inside of lists."""
    pixels: int = 16 << 20
    """Of one image, which a file of a few bytes can have by the billion."""
