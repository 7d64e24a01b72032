"""`Actor`: a policy as the loop sees it. Ours are asked for several robots at once and report what they cut; any other
object needs `act(observation, instruction)` and `reset()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vertebra.errors import ConfigError, did_you_mean

PREFIX = "observation.images."
"""How data sets begin the names of cameras."""


@dataclass(frozen=True, eq=False)
class ActionChunk:
    """Actions that a policy gave."""

    actions: np.ndarray
    """[k, dims], the first of them first."""
    outside: int = 0
    not_a_number: int = 0


class Actor:
    """`execute`: how many actions of a chunk are carried out; None: all that are given."""

    def __init__(self, policy: Any, *, key: str | None = None, execute: int | None = None) -> None:
        if not callable(getattr(policy, "act", None)) or not callable(getattr(policy, "reset", None)):
            raise ConfigError(
                f"the policy is a {type(policy).__name__}; expected a folder's name, or an object with "
                "act(observation, instruction) and reset()"
            )
        self._policy, self._key, self._execute = policy, key, execute
        record = getattr(policy, "record", None)
        self.cameras: tuple[str, ...] | None = None if record is None else tuple(record.cameras)
        """As the policy names them; None: it takes what it is given."""
        self.proprio = record is None or record.proprio is not None or record.frame != "absolute"
        self.view: dict[str, Any] = {} if record is None else dict(record.view)
        """How the images were drawn that it was trained on."""
        self._fits = False
        self.many = hasattr(policy, "decide_many") or hasattr(policy, "act_many")

    def carrying_out(self, execute: int) -> Actor:
        """The same policy, of whose chunks other parts are carried out; one of ours gives as many as that, whatever its
        record says."""
        from vertebra.policies.policy import Policy

        given = self._policy
        if isinstance(given, Policy):
            given = Policy(given.model, given.record, replace(given.settings, execute=execute))
        gives = getattr(getattr(given, "record", None), "gives", execute)
        if execute > gives:
            raise ConfigError(
                f"the arm `chunk={execute}`: the server gives {gives} actions at a time; ask for as many or fewer, or start it "
                f"with --execute {execute}"
            )
        return Actor(given, key=self._key, execute=execute)

    def blending(self, decay: float) -> Actor:
        """The same policy, asked at every step, with its chunks blended."""
        from vertebra.policies.policy import Policy

        given = self._policy
        if not isinstance(given, Policy):
            raise ConfigError(
                f"the arm `ensemble` blends the chunks of our policies; a {type(given).__name__} must blend its own"
            )
        return Actor(Policy(given.model, given.record, replace(given.settings, ensemble=decay)), key=self._key)

    def require_fit(self, seen: Mapping[str, Any], instruction: str, names: Sequence[str]) -> None:
        """Refuse a simulator that does not show what the policy was trained on, before a thousand episodes are lost to it."""
        if self._fits or self.cameras is None:
            return
        from vertebra.policies.observation import Observation, faults

        record = self._policy.record
        found = faults(Observation.of(seen), instruction, record)
        if record.dims != len(names):
            found.append(f"its actions have {record.dims} numbers; the robot's have {len(names)} ({', '.join(names)})")
        if found:
            raise ConfigError("the policy does not fit this simulator:\n" + "\n".join(f"  {one}" for one in found))
        self._fits = True

    def begin(self, robot: int) -> None:
        """A new episode of a robot."""
        if self.many:
            self._policy.reset(robot)
        else:
            self._policy.reset()

    def decide(
        self, seen: Sequence[Mapping[str, Any]], instructions: Sequence[str], robots: Sequence[int]
    ) -> list[ActionChunk]:
        """A chunk for each of several robots."""
        if hasattr(self._policy, "decide_many"):
            made = self._policy.decide_many(seen, instructions, self._key, robots=robots, sure=False)
            found = [ActionChunk(one.chunk, one.outside, one.not_a_number) for one in made]
        elif self.many:
            found = [ActionChunk(np.asarray(one)) for one in self._policy.act_many(seen, instructions, robots=robots)]
        else:
            found = [
                ActionChunk(np.asarray(self._policy.act(one, text)))
                for one, text in zip(seen, instructions, strict=True)
            ]
        return [ActionChunk(_rows(one.actions)[: self._execute], one.outside, one.not_a_number) for one in found]

    def observation(self, images: Mapping[str, np.ndarray], state: np.ndarray) -> dict[str, Any]:
        """What it is shown, under its own names of cameras."""
        names = {name: name.removeprefix(PREFIX) for name in self.cameras} if self.cameras is not None else None
        shown = dict(images) if names is None else {name: images[plain] for name, plain in names.items()}
        return {"images": shown, **({"proprio": state} if self.proprio else {})}


def options_for(actor: Actor, given: Mapping[str, Any], view: Sequence[str]) -> dict[str, Any]:
    """The options that a task is opened with: what a user asks for, the policy's cameras, and for the rest of its `view` what
    its demonstrations were drawn with. A policy that is shown other images fails, and nothing else would say why."""
    options = {**{name: actor.view[name] for name in view if name in actor.view}, **given}
    cameras = cameras_for(actor, options.pop("cameras", None))
    return options if cameras is None else {**options, "cameras": cameras}


def cameras_for(actor: Actor, given: Sequence[str] | None) -> tuple[str, ...] | None:
    """The cameras that a task is opened with: those of the policy; None: the task's own. `given`: what a user asks for."""
    if actor.cameras is None:
        return None if given is None else tuple(given)
    needed = tuple(name.removeprefix(PREFIX) for name in actor.cameras)
    unknown = [name for name in given or () if name not in needed]
    if unknown:
        raise ConfigError(
            f"the policy was not trained on camera `{unknown[0]}`.{did_you_mean(unknown[0], needed)} It looks through: "
            f"{', '.join(needed) or 'none'}"
        )
    return needed


def _rows(actions: np.ndarray) -> np.ndarray:
    """[k, dims], where a policy gives one action alone."""
    return actions[None] if actions.ndim == 1 else actions
