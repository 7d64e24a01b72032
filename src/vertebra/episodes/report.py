"""What a check of a set of episodes found: findings with a verdict, the range of every number, episodes to leave out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["pass", "note", "fail"]
SHOWN = 5
"""Places that one finding names."""


@dataclass(frozen=True)
class EpisodesFinding:
    """One line of the report."""

    name: str
    status: Status
    value: str
    message: str = ""
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Range:
    """One dimension of a vector, over all episodes that can be read."""

    column: str
    name: str
    min: float
    q01: float
    mean: float
    q99: float
    max: float
    std: float

    @property
    def dead(self) -> bool:
        """It never changes: a model learns nothing of it, and normalising it divides by nothing."""
        return self.min == self.max


@dataclass
class Noted:
    """Faults as they are met, by their name; an episode that one of them spoils is to be left out."""

    places: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    skip: dict[int, str] = field(default_factory=dict)

    def add(self, name: str, place: str, *, skip: Iterable[int] = ()) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        self.places.setdefault(name, [])
        if len(self.places[name]) < SHOWN:
            self.places[name].append(place)
        for episode in skip:
            self.skip.setdefault(episode, name)


@dataclass(frozen=True, kw_only=True)
class EpisodesReport:
    """Everything that was found."""

    source: str
    version: str
    robot: str | None
    fps: int | float
    episodes: int
    frames: int
    cameras: tuple[str, ...]
    tasks: tuple[str, ...]
    findings: tuple[EpisodesFinding, ...]
    ranges: tuple[Range, ...]
    skip: dict[int, str]
    """Episodes to leave out, each with the first reason."""

    @property
    def passed(self) -> bool:
        return all(finding.status != "fail" for finding in self.findings)

    def finding(self, name: str) -> EpisodesFinding:
        return next(finding for finding in self.findings if finding.name == name)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "version": self.version,
            "robot": self.robot,
            "fps": self.fps,
            "episodes": self.episodes,
            "frames": self.frames,
            "cameras": list(self.cameras),
            "tasks": list(self.tasks),
            "passed": self.passed,
            "skip": sorted(self.skip),
            "findings": [
                {"name": f.name, "status": f.status, "value": f.value, "message": f.message, "places": list(f.places)}
                for f in self.findings
            ],
            "ranges": [vars(one) | {"dead": one.dead} for one in self.ranges],
        }
