"""What a server counts, as Prometheus reads it, and the last decisions for the live page. It keeps no images but the last."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import numpy as np

_TIMES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """Counts below bounds, and the sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, help: str) -> Iterator[str]:
        yield from _head(name, help, "histogram")
        below = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self.sum:.9g}"
        yield f"{name}_count {below}"


class ServerMetrics:
    """Counted by several threads."""

    def __init__(self, kept: int) -> None:
        self._lock = threading.Lock()
        self.begun = time.time()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.seconds = Histogram(_TIMES)
        self.waited = Histogram(_TIMES)
        self.computed = Histogram(_TIMES)
        self.batches = Histogram(_SIZES)
        self.recent: deque[dict[str, Any]] = deque(maxlen=kept)
        self.seen: dict[str, Any] = {}
        """The last image of each camera."""

    def request(self, route: str, status: str, seconds: float) -> None:
        with self._lock:
            self.requests[route, status] += 1
            self.seconds.add(seconds)

    def batch(self, size: int, waits: list[float], seconds: float) -> None:
        with self._lock:
            self.batches.add(size)
            self.computed.add(seconds)
            for wait in waits:
                self.waited.add(wait)

    def decision(self, session: str, action: np.ndarray, images: dict[str, Any], latency: float, queue: int) -> None:
        with self._lock:
            self.seen = dict(images)
            self.recent.append(
                {
                    "time": time.time(),
                    "session": session,
                    "action": [float(number) for number in action],
                    "latency": latency,
                    "queue": queue,
                }
            )

    def text(self, gauges: dict[str, tuple[str, float]], counters: dict[str, int]) -> str:
        """In Prometheus' text format."""
        with self._lock:
            lines = list(_head("vertebra_requests_total", "Requests by route and outcome.", "counter"))
            for (route, status), count in sorted(self.requests.items()):
                lines.append(f'vertebra_requests_total{{route="{route}",status="{status}"}} {count}')
            for name, (help, value) in gauges.items():
                lines += [*_head(f"vertebra_{name}", help, "gauge"), f"vertebra_{name} {value:.12g}"]
            lines += _head("vertebra_policy_total", "What the policy counted.", "counter")
            lines += [f'vertebra_policy_total{{what="{what}"}} {count}' for what, count in sorted(counters.items())]
            lines += self.seconds.lines("vertebra_request_seconds", "From a request to its answer.")
            lines += self.waited.lines("vertebra_wait_seconds", "In the queue.")
            lines += self.computed.lines("vertebra_compute_seconds", "Of one pass of the model.")
            lines += self.batches.lines("vertebra_batch_size", "Robots in one pass.")
        return "\n".join(lines) + "\n"


def _head(name: str, help: str, kind: str) -> list[str]:
    return [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
