"""What an evaluation is: everything that its numbers depend on, written beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from vertebra import config
from vertebra.config import Bound
from vertebra.errors import ConfigError

Some = Annotated[int, Bound(least=1)]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Everything that an evaluation's numbers depend on but the policies themselves."""

    tasks: tuple[str, ...]
    episodes: Some = 50
    """Of each task, in each arm."""
    seed: Annotated[int, Bound(least=0)] = 0
    """Of the whole; the seeds of episodes follow from it, and are none that demonstrations had."""
    arms: tuple[str, ...] = ()
    """Beside the policy itself: swapped, paraphrase, frozen, chunk=K, ensemble=D, NAME=MODEL."""
    robots: Some = 1
    """Simulations that a process steps side by side, asking the policy once for all."""
    outside: Literal["pass", "clamp", "refuse"] = "pass"
    """Actions beyond the policy's data."""
    key: str | None = None
    """The data set whose units the actions are in, where the policy knows several."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """How tasks are opened: spread, shared …"""

    def __post_init__(self) -> None:
        config.require_bounds(self)
        if not self.tasks:
            raise ConfigError("no task is named; `vertebra sim tasks` lists them")
        if len(set(self.tasks)) < len(self.tasks):
            raise ConfigError(f"a task is named twice: {', '.join(self.tasks)}")

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        made = {name: value for name, value in vars(self).items() if name != "options"}
        return {**made, "tasks": list(self.tasks), "arms": list(self.arms), "options": _plain(self.options)}


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in sorted(options.items())}
