"""Fonts to draw with: the one that Pillow carries, and those of common free families that the machine has."""

from __future__ import annotations

from functools import cache
from typing import Any

from vertebra.errors import UnknownNameError

PILLOW = "pillow"
"""The font inside Pillow, which every machine has."""
FILES: dict[str, str] = {
    "sans": "DejaVuSans.ttf",
    "sans-bold": "DejaVuSans-Bold.ttf",
    "condensed": "DejaVuSansCondensed.ttf",
    "serif": "DejaVuSerif.ttf",
    "mono": "DejaVuSansMono.ttf",
    "liberation": "LiberationSans-Regular.ttf",
    "liberation-serif": "LiberationSerif-Regular.ttf",
    "liberation-mono": "LiberationMono-Regular.ttf",
    "free": "FreeSans.ttf",
}
"""Names of fonts and their files, wherever the system keeps them."""


@cache
def fonts() -> tuple[str, ...]:
    """The names of all fonts that are here; Pillow's own comes first."""
    return (PILLOW, *(name for name in FILES if _opened(name, 12) is not None))


@cache
def font(name: str, size: int) -> Any:
    """A font at a size in pixels."""
    if name == PILLOW:
        from PIL import ImageFont

        return ImageFont.load_default(size)
    found = _opened(name, size) if name in FILES else None
    if found is None:
        raise UnknownNameError("font", name, fonts())
    return found


def _opened(name: str, size: int) -> Any:
    from PIL import ImageFont

    try:
        return ImageFont.truetype(FILES[name], size)
    except OSError:
        return None
