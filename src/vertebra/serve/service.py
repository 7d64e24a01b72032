"""What a server holds: a model that acts or one that answers in words, its scheduler, counts, and whether it takes requests.

Starting warms the model up; draining refuses what is new and waits for what was accepted.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

from vertebra import __version__, log
from vertebra.errors import CheckpointError, ConfigError
from vertebra.model.model import Model
from vertebra.policies.decision import Decision
from vertebra.policies.drawn import drawn_observation
from vertebra.policies.policy import Policy
from vertebra.serve.holding import Folder, own_weights
from vertebra.serve.metrics import ServerMetrics
from vertebra.serve.observing import ObservationRequest
from vertebra.serve.refusals import Busy
from vertebra.serve.scheduler import Scheduler
from vertebra.serve.settings import ServeSettings
from vertebra.serve.speaking import Speaker


class Service:
    """One model behind all protocols."""

    def __init__(
        self,
        served: Policy | Model,
        settings: ServeSettings,
        name: str | None = None,
        folder: Folder | None = None,
    ) -> None:
        self.settings, self.folder = settings, folder
        self.metrics = ServerMetrics(settings.history)
        self.policy = served if isinstance(served, Policy) else None
        self.scheduler = None if self.policy is None else Scheduler(self.policy, settings, self.metrics)
        self.speaker = Speaker(served, settings, self.metrics) if isinstance(served, Model) else None
        model = served.model if isinstance(served, Policy) else served
        self.name = name or str(model.identifier)
        self.weights = None if folder is None else folder.state
        """What tells these weights from others under the same name."""
        own_weights(model)
        if self.outdated:
            raise CheckpointError(
                f"`{self.name}` changed while it was being loaded, so that what was read may be half old and half new; start "
                "again when it is written"
            )
        if self.policy is not None:
            unknown = [camera for camera in settings.rename.values() if camera not in self.policy.record.cameras]
            if unknown:
                known = ", ".join(self.policy.record.cameras)
                raise ConfigError(f"rename: the policy has no camera `{unknown[0]}`; its cameras are {known}")
        elif settings.rename:
            raise ConfigError("rename is about a policy's cameras, and this model answers in words; leave it out")
        self.ready = False
        self.draining = asyncio.Event()
        self.active = 0
        """Requests that are accepted and not answered yet."""
        self.sockets = 0
        """Websockets that are open."""

    @property
    def outdated(self) -> bool:
        """Whether the folder holds something else by now than what is served."""
        return self.folder is not None and self.folder.changed

    async def start(self) -> None:
        """Warm up; ready when it is done."""
        if self.scheduler is not None:
            self.scheduler.start()
            assert self.policy is not None
            keys = self.policy.keys
            seen = drawn_observation(self.policy, unnorm_key=keys[0] if keys else None)
            await self.scheduler.ask(seen, "warm up", keys[0] if keys else None, None)
            self.policy.counts.clear()
        elif self.speaker is not None:
            self.speaker.start()
            await self.speaker.warm_up()
        self.ready = True
        record("ready", model=self.name)

    async def drain(self) -> None:
        """Refuse what is new, until everything accepted is answered, or for `drain` seconds."""
        self.draining.set()
        record("draining", active=self.active)
        until = time.monotonic() + self.settings.drain
        while self.active and time.monotonic() < until:
            await asyncio.sleep(0.005)
        record("drained", unanswered=self.active)

    def stop(self) -> None:
        if self.scheduler is not None:
            self.scheduler.stop()
        if self.speaker is not None:
            self.speaker.stop()

    def require_open(self) -> None:
        """Whether a request can be accepted now."""
        if self.draining.is_set():
            raise Busy("the server is about to end; ask another one, or later")
        if not self.ready:
            raise Busy("the model is not ready yet")

    async def act(self, asked: ObservationRequest, robot: str | None) -> Decision:
        """The decision about a request; `robot`: who asks, unless the request names its session."""
        assert self.scheduler is not None
        assert self.policy is not None
        begun = time.monotonic()
        name = asked.session or robot
        if name is None and self.policy.remembers:
            log.warn_once(
                "this policy remembers earlier steps, and a client sends no `session`: each request is an episode of its own"
            )
        made = await self.scheduler.ask(asked.observation, asked.instruction, asked.unnorm_key, name, asked.done)
        waiting = self.scheduler.waiting
        shown = asked.observation.images
        self.metrics.decision(name or "", made.chunk[0], dict(shown), time.monotonic() - begun, waiting)
        return made

    def metadata(self) -> dict[str, Any]:
        """What a client should know of the model before it asks."""
        known: dict[str, Any] = {"vertebra": __version__, "model": os.path.basename(self.name.rstrip("/")) or self.name}
        if self.policy is None:
            return {**known, "kind": "language model", "images": self.speaker is not None and self.speaker.sees}
        record = self.policy.record
        return {
            **known, "kind": "policy", "head": record.head, "cameras": list(record.cameras), "dims": record.dims,
            "chunk_size": record.chunk, "execute": self.policy.settings.execute or record.execute or record.chunk,
            "history": record.history, "proprio": record.proprio, "frame": record.frame, "keys": self.policy.keys,
            "view": record.view, "weights": self.weights,
        }  # fmt: skip


def record(event: str, **facts: Any) -> None:
    """One line of the log: JSON, without images and instructions."""
    log.info(json.dumps({"time": round(time.time(), 3), "event": event, **facts}))
