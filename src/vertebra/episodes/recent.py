"""The last few of what is costly to open or to decode, up to a bound, and of this process alone.

A worker that was forked has its parent's files, with the parent's place in them; one that was spawned has none. Both
begin with nothing and open their own. It does not know what it keeps.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

Kept = TypeVar("Kept")


class Recent(Generic[Kept]):
    """Up to `most` of something, weighed by `weight`; the last one stays however heavy it is."""

    def __init__(
        self,
        most: int,
        *,
        weight: Callable[[Kept], int] | None = None,
        close: Callable[[Kept], object] | None = None,
    ) -> None:
        """`weight`: 1 each by default. Both are functions of a module, so that what has them can be pickled."""
        self.most, self._weight, self._close = most, weight or _one, close or _nothing
        self._begin()

    def get(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """What stands under a key, made where it is not there."""
        with self.alone():
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            made = make()
            self._kept[key] = made
            self._weighs += self._weight(made)
            while self._weighs > self.most and len(self._kept) > 1:
                self._drop(next(iter(self._kept)))
            return made

    def forget(self, key: Hashable) -> None:
        with self.alone():
            if key in self._kept:
                self._drop(key)

    def clear(self) -> None:
        with self.alone():
            for key in list(self._kept):
                self._drop(key)

    def alone(self) -> AbstractContextManager[Any]:
        """While something kept is used that two threads may not use at once."""
        if self._process != os.getpid():
            # neither used nor closed, nor dropped, for closing could wait for threads that were not forked
            self._parents = self._kept
            self._begin()
        return self._lock

    def __len__(self) -> int:
        return len(self._kept)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("most", "_weight", "_close")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        self._process, self._lock = os.getpid(), threading.RLock()
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self._weighs = 0

    def _drop(self, key: Hashable) -> None:
        dropped = self._kept.pop(key)
        self._weighs -= self._weight(dropped)
        self._close(dropped)


def _one(kept: Any) -> int:
    return 1


def _nothing(kept: Any) -> None:
    """Nothing is to be closed."""
