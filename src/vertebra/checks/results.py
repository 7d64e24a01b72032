"""What a check returns: a number held against a bound, or the reason why it does not apply; and the report of all.

Whether a check passed is never decided by the check itself: it follows from the number, the bound and the faults, so
that a NaN fails and nothing passes by default. It knows no models.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Relation = Literal["<=", "==", ">="]
_HOLDS = {"<=": operator.le, "==": operator.eq, ">=": operator.ge}
_SIGN = {"<=": "≤", "==": "=", ">=": "≥"}
Status = Literal["pass", "fail", "skip"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number, what it must be, and what was found wrong besides."""

    number: float
    relation: Relation
    bound: float
    message: str
    """What was measured, in a few words."""
    faults: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return bool(_HOLDS[self.relation](self.number, self.bound)) and not self.faults

    @property
    def expected(self) -> str:
        return f"{_SIGN[self.relation]} {written(self.bound)}"


@dataclass(frozen=True)
class Skip:
    """Why a check does not apply to this model, or cannot be made now."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row of the table."""

    name: str
    status: Status
    number: float | None
    bound: str | None
    message: str
    mend: str | None
    """What to do; only where it failed."""
    seconds: float

    @classmethod
    def of(cls, name: str, outcome: Measure | Skip | str, *, mend: str, seconds: float) -> Result:
        """The row of an outcome; a string is the message of the error that ended the check."""
        if isinstance(outcome, Skip):
            return cls(
                name=name, status="skip", number=None, bound=None, message=outcome.reason, mend=None, seconds=seconds
            )
        if isinstance(outcome, str):
            return cls(name=name, status="fail", number=None, bound=None, message=outcome, mend=mend, seconds=seconds)
        message = outcome.message + "".join(f"; {fault}" for fault in outcome.faults)
        return cls(
            name=name,
            status="pass" if outcome.holds else "fail",
            number=outcome.number,
            bound=outcome.expected,
            message=message,
            mend=None if outcome.holds else mend,
            seconds=seconds,
        )

    def to_json(self) -> dict[str, Any]:
        number = self.number
        finite = number is not None and abs(number) < float("inf")
        return {
            "name": self.name,
            "status": self.status,
            "number": number if finite else None if number is None else str(number),
            "bound": self.bound,
            "message": self.message,
            "mend": self.mend,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that was checked on one model."""

    model: str
    facts: Mapping[str, Any]
    """Family, class, kernel, dtype, device, window: what the numbers were measured on."""
    guesses: Mapping[str, str]
    """Facts that no family's row gives and that were read off the model instead."""
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(result.name for result in self.results if result.status == "fail")

    def to_json(self) -> dict[str, Any]:
        """Plain data, the same for every version of this format."""
        return {
            "model": self.model,
            "passed": self.passed,
            "facts": dict(self.facts),
            "guesses": dict(self.guesses),
            "checks": [result.to_json() for result in self.results],
        }


def written(number: float) -> str:
    """A count as a count, a difference in powers of ten."""
    if float(number).is_integer() and abs(number) < 1e9:
        return str(int(number))
    return f"{number:.1e}"
