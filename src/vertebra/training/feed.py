"""`Feed`: a loader as one stream of micro-batches for the whole run, so that its position is all there is to resume.

Epochs are the loader's affair: the trainer sees one long pass. Fetching never touches the random numbers that the
model draws, so that workers, prefetching and a resume change nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch

from vertebra.errors import ConfigError, DataError
from vertebra.sequence.batch import Batch


class AnyLoader(Protocol):
    """What a feed needs of a loader: `Loader` and `StreamLoader` of `data.loaders` have it."""

    @property
    def epoch(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def state_dict(self, *, consumed: int | None = None) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class Feed:
    """`steps` × `accumulate` micro-batches, epoch after epoch."""

    def __init__(self, loader: AnyLoader, *, steps: int, accumulate: int) -> None:
        self.loader, self.steps, self.accumulate = loader, steps, accumulate
        self.given = 0
        self._pass: Iterator[Batch] = iter(())

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[Batch]:
        empty = 0
        while self.given < len(self):
            before = self.given
            self._pass = iter(self.loader)
            for batch in self._pass:
                self.given += 1
                yield batch
                if self.given >= len(self):
                    return
            # A stream that is resumed at the very end of an epoch has to look before it knows: one empty pass is fine.
            empty = empty + 1 if self.given == before else 0
            if empty > 1:
                raise DataError("the data gave no batch in a whole epoch; nothing can be trained on it")

    def close(self) -> None:
        """The loader's workers end now.

        A trainer is part of many circles, and garbage of circles is ended in no good order: torch would take the queues
        away before it told the workers to go, and wait five seconds for each.
        """
        if isinstance(self._pass, Generator):
            self._pass.close()  # the frames of an error on its way out still hold it
        self.loader.close()

    @property
    def progress(self) -> float:
        """Epochs done, with their fraction where the loader's length is known."""
        state = self.loader.state_dict()
        try:
            return state["epoch"] + state["batches"] / len(self.loader)  # type: ignore[arg-type]
        except (TypeError, KeyError):
            return float(self.loader.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the optimizer stands: valid whenever all batches that were handed out have been used."""
        return {"given": self.given, "loader": self.loader.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.loader.load_state_dict(state["loader"])
        self.given = int(state["given"])


def steps_of(loader: Any, *, steps: int | None, epochs: float | None, accumulate: int) -> int:
    """How many optimizer steps a run has."""
    if steps is not None:
        return steps
    assert epochs is not None, "the config gives steps or epochs"
    try:
        batches = len(loader)
    except TypeError:
        raise ConfigError("this data is a stream of unknown length; give `steps` in place of `epochs`") from None
    return max(1, math.ceil(epochs * batches / accumulate))


def random_state() -> dict[str, Any]:
    """The state of every generator that a model may draw from, as plain values and tensors."""
    kind, keys, place, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), place, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def random_untouched() -> Iterator[None]:
    """Whatever is drawn inside, the generators are as before afterwards."""
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
