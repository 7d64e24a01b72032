"""Units of length on a page, as a table: how many make an inch, or how many make the whole page.

pixel      of the image; needs a resolution (dpi) to become a length
point      1/72 inch                              PDF
mm10       1/10 millimetre                        ALTO
inch1200   1/1200 inch                            ALTO
relative   0..1 of the page's width and height
thousand   0..1000 of the page's width and height, what models read
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vertebra.errors import DataError, UnknownNameError

UnitName = Literal["pixel", "point", "mm10", "inch1200", "relative", "thousand"]
Origin = Literal["top", "bottom"]
Size = tuple[float, float]


@dataclass(frozen=True)
class Unit:
    """A row: units an inch, or units a page; a pixel has neither."""

    per_inch: float | None = None
    whole: float | None = None


UNITS: dict[str, Unit] = {
    "pixel": Unit(),
    "point": Unit(per_inch=72.0),
    "mm10": Unit(per_inch=254.0),
    "inch1200": Unit(per_inch=1200.0),
    "relative": Unit(whole=1.0),
    "thousand": Unit(whole=1000.0),
}


def unit_of(name: str) -> Unit:
    """The row of a unit."""
    if name not in UNITS:
        raise UnknownNameError("unit", name, UNITS)
    return UNITS[name]


def per_inch(name: str, dpi: float | None) -> float:
    """How many of a unit of length make an inch."""
    if name == "pixel":
        if dpi is None or not dpi > 0:
            raise DataError(
                "between pixels and lengths stands the resolution; give `dpi=`, or the `size=` in the new unit"
            )
        return dpi
    found = unit_of(name).per_inch
    if found is None:
        raise DataError(f"`{name}` is a share of the page and no length; give the page's `size=`")
    return found


def factors(
    have: str, target: str, size: Size | None, *, size_unit: str, new_size: Size | None, dpi: float | None
) -> tuple[float, float]:
    """What x and y are multiplied with on the way from one unit to another.

    `size` is the page's, in `size_unit`; `new_size` is asked for by whoever wants the page at another size.
    """
    if have == target and new_size is None:
        return 1.0, 1.0
    here, there = unit_of(have), unit_of(target)
    if here.whole is None and there.whole is None and new_size is None:
        ratio = per_inch(target, dpi) / per_inch(have, dpi)
        return ratio, ratio
    start = (here.whole, here.whole) if here.whole else size
    if there.whole:
        end: Size | None = (there.whole, there.whole)
    elif new_size is not None:
        end = new_size
    elif size is not None:
        ratio = 1.0 if size_unit == target else per_inch(target, dpi) / per_inch(size_unit, dpi)
        end = (size[0] * ratio, size[1] * ratio)
    else:
        end = None
    if start is None or end is None:
        raise DataError(
            f"from `{have}` to `{target}` the size of the page is needed, and it has none; give `size=(width, height)` or "
            "the image"
        )
    return end[0] / start[0], end[1] / start[1]
