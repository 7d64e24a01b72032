"""The policies that a process asks. They are loaded once an evaluation: before the next, a folder may be trained further."""

from __future__ import annotations

from vertebra.evaluate.actor import Actor
from vertebra.evaluate.arms import Arm
from vertebra.evaluate.remote import Served, is_address
from vertebra.evaluate.settings import EvaluationSettings


class LoadedPolicies:
    """Those of one evaluation, in this process."""

    def __init__(self) -> None:
        self._evaluation: int | None = None
        self._actors: dict[tuple[str, int | None, float | None], Actor] = {}
        self._served: list[Served] = []

    def begin(self, evaluation: int) -> None:
        """Let go of those of another evaluation; a worker may serve several, one after the other."""
        if evaluation != self._evaluation:
            self.forget()
            self._evaluation = evaluation

    def forget(self) -> None:
        """Let go of all."""
        self._evaluation = None
        self._actors.clear()
        while self._served:
            self._served.pop().close()

    def put(self, name: str, actor: Actor) -> None:
        """A policy that is an object of this process."""
        self._actors[name, None, None] = actor

    def actor(self, name: str, arm: Arm, settings: EvaluationSettings) -> Actor:
        """A policy that was loaded before, or is loaded now, as the arm carries out its chunks."""
        key = (name, arm.execute, arm.ensemble)
        if key not in self._actors:
            made = self._loaded(name, settings)
            if arm.execute is not None:
                made = made.carrying_out(arm.execute)
            if arm.ensemble is not None:
                made = made.blending(arm.ensemble)
            self._actors[key] = made
        return self._actors[key]

    def _loaded(self, name: str, settings: EvaluationSettings) -> Actor:
        whole = (name, None, None)
        if whole not in self._actors and is_address(name):
            self._served.append(Served(name, key=settings.key))
            self.put(name, Actor(self._served[-1]))
        if whole not in self._actors:
            from vertebra.interop.acting import policy
            from vertebra.policies.settings import PolicySettings

            made = policy(name, settings=PolicySettings(outside=settings.outside))
            self.put(name, Actor(made, key=settings.key))
        return self._actors[whole]


ASKED = LoadedPolicies()
"""Those of this process."""
