"""What is kept of the steps between two rows of metrics, who judges evaluations, and what stops a run that diverges.

All three save and restore their state, so that a resumed run writes the rows that an uninterrupted one would.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vertebra import log
from vertebra.errors import TrainingError
from vertebra.folders import write_file


class Interval:
    """The steps since the last row: their mean loss, their tokens, their time."""

    def __init__(self) -> None:
        self.batches: Sequence[Any] = ()
        self.last_loss = math.nan
        self.rate = 0.0
        self._sum, self._steps, self._tokens = 0.0, 0, 0
        self._all_tokens = 0
        self._parts: list[torch.Tensor] = []
        self._since: float | None = None  # from the first step on: what comes before it is not training
        self._paused, self._timed = 0.0, 0

    def begin(self, *, tokens: int, batches: Sequence[Any]) -> None:
        """A step begins, with these micro-batches."""
        self._since = self._since or time.perf_counter()
        self.batches = batches
        self._tokens += tokens
        self._all_tokens += tokens
        self._timed += tokens
        self._parts = []

    def loss(self, loss: torch.Tensor) -> None:
        """One micro-batch's share of the step's loss."""
        self._parts.append(loss)

    def step_loss(self) -> torch.Tensor:
        """This rank's share of the step's loss."""
        return torch.stack(self._parts).sum()

    def end(self, loss: float) -> None:
        """The step's loss over all ranks."""
        self.last_loss = loss
        if math.isfinite(loss):  # a step that was skipped for its loss must not swallow those beside it
            self._sum += loss
            self._steps += 1
        self.rate = self._timed / self._seconds()

    def pause(self, seconds: float) -> None:
        """Time that was not training."""
        self._paused += seconds

    def row(self) -> tuple[dict[str, Any], dict[str, float]]:
        """What a row says, and what the clock says; the next interval begins."""
        seconds = self._seconds()
        clock = {"seconds": seconds, "tokens_per_second": self._timed / seconds}
        row = {"loss": self._sum / self._steps if self._steps else math.nan, "tokens": self._all_tokens}
        self._sum, self._steps, self._tokens = 0.0, 0, 0
        self._since, self._paused, self._timed = time.perf_counter(), 0.0, 0
        return row, clock

    def _seconds(self) -> float:
        since = self._since or time.perf_counter()
        return max(1e-9, time.perf_counter() - since - self._paused)

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self._sum, "steps": self._steps, "tokens": self._tokens, "all": self._all_tokens}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sum, self._steps = float(state["sum"]), int(state["steps"])
        self._tokens, self._all_tokens = int(state["tokens"]), int(state["all"])


class Judge:
    """Which evaluation was the best, and whether there is still hope."""

    def __init__(self, *, patience: int) -> None:
        self.patience = patience
        self.best = math.inf
        self.best_step: int | None = None
        self.worse = 0

    def see(self, step: int, loss: float) -> bool:
        """Whether this one is the best so far."""
        if loss < self.best:
            self.best, self.best_step, self.worse = loss, step, 0
            return True
        self.worse += 1
        return False

    @property
    def gave_up(self) -> bool:
        return bool(self.patience) and self.worse >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"best": None if math.isinf(self.best) else self.best, "step": self.best_step, "worse": self.worse}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = math.inf if state["best"] is None else float(state["best"])
        self.best_step, self.worse = state["step"], int(state["worse"])


class NotFinite:
    """Stops (or skips, by choice) a step with a NaN or an exploding loss, and keeps its batch for inspection."""

    def __init__(self, folder: Path, *, choice: str, explodes: float) -> None:
        self.folder, self.choice, self.explodes = folder, choice, explodes
        self.skipped = 0
        self._mean: float | None = None

    def accepts(self, step: int, loss: float, norm: float, batches: Sequence[Any]) -> bool:
        """Whether the optimizer may take this step."""
        finite = math.isfinite(loss) and math.isfinite(norm)
        bursts = finite and self.explodes > 0 and self._mean is not None and loss > self.explodes * self._mean
        if finite and not bursts:
            self._mean = loss if self._mean is None else 0.95 * self._mean + 0.05 * loss
            return True
        path = self._kept(step, batches)
        if bursts:
            what = (
                f"step {step}: the loss is {loss:.4g}, more than {self.explodes:g} times its mean of {self._mean:.4g}"
            )
        else:
            what = f"step {step}: the loss is {loss}, the gradient norm {norm}"
        if self.choice == "stop":
            raise TrainingError(
                f"{what}. Its batch is in `{path}`. Lower the learning rate, clip, or look at the batch; then go on "
                "with --resume, or let such steps be skipped (on_nan=skip)"
            )
        self.skipped += 1
        log.warn(f"{what}; the step is skipped, its batch is in `{path}`")
        return False

    def _kept(self, step: int, batches: Sequence[Any]) -> Path:
        path = self.folder / f"bad-batch-{step:08d}-rank{log.rank()}.pt"
        kept = io.BytesIO()
        torch.save([{k: v for k, v in batch.items() if v is not None} for batch in batches], kept)
        return write_file(path, kept.getvalue())

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "mean": self._mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.skipped, self._mean = int(state["skipped"]), state["mean"]
