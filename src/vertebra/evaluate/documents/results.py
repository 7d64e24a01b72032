"""What an evaluation of documents found: one record an answer; rates with intervals by field and type; arms in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from vertebra.documents.calibration import Calibration, ece
from vertebra.evaluate.intervals import Z, mcnemar, paired_difference, wilson

FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class AnswerRecord:
    """One answer of one arm, and how right it is."""

    arm: str
    page: int
    """Which page of the data, from 0 on."""
    seed: int
    field: str
    kind: str
    golds: tuple[str, ...]
    answer: str | None
    confidence: float
    exact: bool
    same: bool
    """Equal as values: RM 9.50 and 9.50, 25/12/2018 and 25 Dec 2018."""
    anls: float
    line_f1: float | None
    """Of the evidence; None: no line of the page holds the answer."""
    box_hits: float | None
    stands: bool
    """The answer stands on the page (an absent one does too); of one that was not copied, each of its words."""
    lines: tuple[int, ...] = ()
    """Where it points: lines of the page as it was read."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Of some answers."""

    count: int
    exact: float
    exact_low: float
    exact_high: float
    same: float
    anls: float
    anls_low: float
    anls_high: float
    line_f1: float | None
    box_hits: float | None
    stands: float


@dataclass(frozen=True, kw_only=True)
class PairedAnswers:
    """The model and an arm on the same questions."""

    arm: str
    count: int
    difference: float
    """Of exact answers: model − arm."""
    low: float
    high: float
    p: float
    """McNemar's exact test."""
    anls: float
    anls_low: float
    anls_high: float


@dataclass(frozen=True, kw_only=True)
class DocumentResults:
    """All records, and what follows from them."""

    model: str
    records: tuple[AnswerRecord, ...]
    seconds: float = 0.0

    @cached_property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(one.arm for one in self.records))

    def of(self, arm: str) -> list[AnswerRecord]:
        return [one for one in self.records if one.arm == arm]

    def by(self, arm: str, key: Callable[[AnswerRecord], str]) -> dict[str, Summary]:
        """Summaries of an arm's answers, by field or by type."""
        names = dict.fromkeys(key(one) for one in self.of(arm))
        return {name: summary(one for one in self.of(arm) if key(one) == name) for name in names}

    @cached_property
    def paired(self) -> list[PairedAnswers]:
        """Every other arm beside the first."""
        return [pair_of(self.of(self.arms[0]), self.of(arm)) for arm in self.arms[1:]]

    @cached_property
    def ece(self) -> float:
        """Of the model's own confidences."""
        own = self.of(self.arms[0])
        return ece([one.confidence for one in own], [one.same for one in own])

    def calibrated(self, kind: Any = "temperature") -> tuple[Calibration, float]:
        """A calibration fitted on all answers, and the error that such a fit leaves on pages that it did not see."""
        own = self.of(self.arms[0])
        raw, right = [one.confidence for one in own], [one.same for one in own]
        whole = Calibration.fit(raw, right, kind)
        fold = [one.page % FOLDS for one in own]
        held: list[tuple[float, bool]] = []
        for number in sorted(set(fold)):
            seen = [at for at, one in enumerate(fold) if one != number]
            if not seen:
                return whole, ece([whole(one) for one in raw], right)
            fitted = Calibration.fit([raw[at] for at in seen], [right[at] for at in seen], kind)
            held += [(fitted(raw[at]), right[at]) for at, one in enumerate(fold) if one == number]
        return whole, ece([confidence for confidence, _ in held], [one for _, one in held])

    def to_json(self) -> dict[str, Any]:
        """Plain data: summaries by arm, field and type, pairs, the calibration error, every record."""

        def plain(found: Mapping[str, Summary]) -> dict[str, Any]:
            return {name: asdict(one) for name, one in found.items()}

        return {
            "model": self.model,
            "arms": {
                arm: {
                    "all": asdict(summary(self.of(arm))),
                    "fields": plain(self.by(arm, lambda one: one.field)),
                    "types": plain(self.by(arm, lambda one: one.kind)),
                }
                for arm in self.arms
            },
            "paired": [asdict(one) for one in self.paired], "ece": self.ece, "seconds": self.seconds,
            "records": [asdict(one) for one in self.records],
        }  # fmt: skip


def summary(records: Iterable[AnswerRecord]) -> Summary:
    """Rates and means, with intervals of 95 %."""
    own = list(records)
    right = sum(one.exact for one in own)
    low, high = wilson(right, len(own))
    anls, anls_low, anls_high = mean_interval([one.anls for one in own])
    return Summary(
        count=len(own), exact=right / len(own) if own else 0.0, exact_low=low, exact_high=high,
        same=_mean(float(one.same) for one in own) or 0.0, anls=anls, anls_low=anls_low, anls_high=anls_high,
        line_f1=_mean(one.line_f1 for one in own if one.line_f1 is not None),
        box_hits=_mean(one.box_hits for one in own if one.box_hits is not None),
        stands=_mean(float(one.stands) for one in own) or 0.0,
    )  # fmt: skip


def pair_of(first: Sequence[AnswerRecord], second: Sequence[AnswerRecord]) -> PairedAnswers:
    """Two arms on the questions that both were asked; of an arm with several seeds each answer is a pair."""
    own = {(one.page, one.field): one for one in first}
    pairs = [(own[one.page, one.field], one) for one in second if (one.page, one.field) in own]
    both = sum(a.exact and b.exact for a, b in pairs)
    only_first, only_second = (
        sum(a.exact and not b.exact for a, b in pairs),
        sum(b.exact and not a.exact for a, b in pairs),
    )
    neither = len(pairs) - both - only_first - only_second
    difference, low, high = paired_difference(both, only_first, only_second, neither)
    anls, anls_low, anls_high = mean_interval([a.anls - b.anls for a, b in pairs], least=-1.0)
    return PairedAnswers(
        arm=second[0].arm, count=len(pairs), difference=difference, low=low, high=high,
        p=mcnemar(only_first, only_second), anls=anls, anls_low=anls_low, anls_high=anls_high,
    )  # fmt: skip


def mean_interval(values: Sequence[float], *, least: float = 0.0) -> tuple[float, float, float]:
    """(mean, low, high) by the normal distribution, inside of what is possible."""
    if not values:
        return 0.0, least, 1.0
    mean = fmean(values)
    half = Z * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 1.0
    return mean, max(mean - half, least), min(mean + half, 1.0)


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return fmean(found) if found else None
