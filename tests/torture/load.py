"""Many clients at once, each with a memory of its own at the server, a tenth of what they send malformed; every answer is
compared with that of the policy asked alone."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tests.torture.malformed import KINDS
from vertebra.client import connect
from vertebra.errors import VertebraError

IMAGES = 5


@dataclass
class Outcome:
    """What became of everything that was sent."""

    right: int = 0
    wrong: int = 0
    lost: int = 0
    """Requests without an answer, or with an error."""
    malformed: Counter[str] = field(default_factory=Counter)
    """By kind."""
    mistaken: Counter[str] = field(default_factory=Counter)
    """Those that were not answered as they should be, and what broke a client."""
    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    """Bytes that the server held, once a second."""

    @property
    def growth(self) -> float:
        """Memory of the last quarter by that of the second one: in the first, buffers grow to their size."""
        quarter = max(1, len(self.memory) // 4)
        return float(np.median(self.memory[-quarter:]) / np.median(self.memory[quarter : 2 * quarter] or self.memory))

    def __str__(self) -> str:
        p50, p99 = (1e3 * float(np.percentile(self.seconds or [0], q)) for q in (50, 99))
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.malformed.items()))
        wrong = f"; NOT as they should be: {dict(self.mistaken)}" if self.mistaken else ""
        return (
            f"{self.right:,} right, {self.wrong} wrong, {self.lost} lost; malformed: {kinds}{wrong}; "
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms; memory {np.median(self.memory or [0]) / 2**20:.0f} MiB, × {self.growth:.3f}"
        )


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (224, 224, 3), dtype=np.uint8)


def expectations(
    act: Callable[[np.ndarray], np.ndarray], reset: Callable[[], None]
) -> dict[tuple[int, int], np.ndarray]:
    """{(the image before, or −1; the image now): the chunk} of a policy that remembers one image."""
    made = {}
    for before in range(-1, IMAGES):
        for now in range(IMAGES):
            reset()
            if before >= 0:
                act(image(before))
            made[before, now] = act(image(now))
    return made


def hammer(
    url: str,
    expected: dict[tuple[int, int], np.ndarray],
    *,
    seconds: float,
    clients: int,
    memory: Callable[[], float],
    share: float = 0.1,
) -> Outcome:
    """Load a server until the time is over."""
    outcome, lock = Outcome(), threading.Lock()
    until, port = time.monotonic() + seconds, int(url.rsplit(":", 1)[1])
    pictures = [image(number) for number in range(IMAGES)]

    def malformed(luck: random.Random) -> None:
        kind = luck.choice(list(KINDS))
        one = luck.choice(KINDS[kind])
        try:
            fits = one(port, luck)
        except Exception as error:  # the client broke: that is a finding as well
            fits, kind = False, f"{kind}: {type(error).__name__} {error}"[:80]
        with lock:
            outcome.malformed[kind] += 1
            if not fits:
                outcome.mistaken[f"{kind} ({getattr(one, '__name__', one)})"] += 1

    def work(number: int) -> None:
        luck = random.Random(number)
        with connect(url.replace("http", ("http", "ws")[number % 2]), patience=0) as client:
            before: int | None = -1
            while time.monotonic() < until:
                if luck.random() < share:
                    malformed(luck)
                    continue
                now, begun = luck.randrange(IMAGES), time.monotonic()
                try:
                    if before is None or luck.random() < 0.05:
                        client.reset()
                        before = -1
                    found = client.act(pictures[now], "Pick up the cup", "bridge")
                except VertebraError as error:
                    with lock:
                        outcome.lost += 1
                        outcome.mistaken[f"lost: {error}"[:100]] += 1
                    client.close()
                    before = None
                    time.sleep(0.05)
                    continue
                right = np.allclose(found, expected[before, now], atol=1e-5)
                with lock:
                    outcome.seconds.append(time.monotonic() - begun)
                    outcome.right += right
                    outcome.wrong += not right
                before = now

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        outcome.memory.append(memory())
        time.sleep(min(1.0, seconds / 20))
    for thread in threads:
        thread.join()
    return outcome
