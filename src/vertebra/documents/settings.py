"""How a document is extracted: budgets, windows, and the form of answers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from vertebra.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ExtractSettings:
    """One call's settings; each has a default that works."""

    max_new_tokens: int | None = None
    """Tokens that one value may take; None: 64, or an eighth of the model's positions where it has few."""
    max_list_tokens: int | None = None
    """Tokens that a list or an object may take; None: 512, or a quarter of the model's positions."""
    seconds: float | None = None
    """Time for all of it; what is found by then is kept, and what is missing is listed."""
    window: int | None = None
    """Positions that the lines of one window may take; None: as many as the model has, less what answers need."""
    overlap: int = 2
    """Lines that a window repeats of the one before."""
    rows: int = 16
    """Fields that are asked side by side."""
    quoted: bool | None = None
    """Whether single values are answered in quotes; None: not by models that were trained on pages."""
    across: Collection[str] = ()
    """Fields whose text may run over the ends of lines: an address."""
    free: Collection[str] = ()
    """Fields that the model writes itself: a summary. They have no place on the page."""
    least: float = 0.0
    """Values below this confidence are left out, and listed."""
    record: Any = None
    """A `layout.PageRecord` of how the page is written for the model; None: the model's own."""
    calibration: Any = None
    """A `Calibration` or its file; None: the model's own, where its folder has one."""

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {getattr(self, name)!r}; expected {least} or more"
            for name, least in (("max_new_tokens", 1), ("max_list_tokens", 1), ("overlap", 0), ("rows", 1))
            if getattr(self, name) is not None and getattr(self, name) < least
        ]
        if self.seconds is not None and self.seconds <= 0:
            faults.append(f"seconds is {self.seconds}; expected more than 0")
        if self.window is not None and self.window < 1:
            faults.append(f"window is {self.window}; expected positions, 1 or more")
        if not 0 <= self.least <= 1:
            faults.append(f"least is {self.least}; expected a confidence, 0 to 1")
        for name in ("across", "free"):
            if isinstance(getattr(self, name), str):
                faults.append(
                    f"{name} is one text, {getattr(self, name)!r:.40}; expected names of fields, ('address',)"
                )
        if faults:
            raise ConfigError("settings of an extraction: " + "; ".join(faults))
