"""Evaluation during training: the held-out loss by weight over all ranks, and what the task itself measures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import islice

import torch
import torch.distributed as dist

from vertebra import log
from vertebra.sequence.batch import Batch
from vertebra.sequence.loss import count_items
from vertebra.tasks.chain import TaskData
from vertebra.tasks.task import HeldOut
from vertebra.training.config import RunConfig
from vertebra.training.learner import Learner


class Evaluator:
    """Called with the learner; gives `loss` and what else the task knows."""

    def __init__(self, config: RunConfig, data: TaskData) -> None:
        self.config, self.data = config, data
        self.world = int(os.environ.get("WORLD_SIZE", "1"))

    @classmethod
    def of(cls, config: RunConfig, data: TaskData) -> Evaluator | None:
        if data.held_out is not None:
            return cls(config, data)
        if config.eval.every:
            log.warn("eval.every has no effect: nothing is held out (data.held_out, or others by data.eval_path)")
        return None

    @torch.no_grad()
    def __call__(self, learner: Learner) -> dict[str, float]:
        device = next(learner.parameters()).device
        was = learner.training
        learner.eval()
        summed = torch.zeros(2, dtype=torch.float64)
        for batch in self._batches(device):
            summed[0] += learner(**batch, num_items_in_batch=torch.ones((), device=device))["loss"].double().cpu()
            summed[1] += count_items(batch, shift=learner.shift).double().cpu()
        if self.world > 1:
            dist.all_reduce(summed)
        assert self.data.held_out is not None, "made only where samples are held out"
        held_out = HeldOut(samples=self.data.held_out, batches=partial(self._batches, device), world=self.world)
        found = self.data.task.measure(learner, held_out)
        learner.train(was)
        return {"loss": float(summed[0] / summed[1].clamp(min=1e-9)), "items": float(summed[1]), **found}

    def _batches(self, device: torch.device) -> Iterator[Batch]:
        """This rank's, at most so many as the config says."""
        loader = self.data.eval_loader(self.config.optim.batch, rank=log.rank(), world=self.world)
        assert loader is not None, "made only where samples are held out"
        for batch in islice(loader, self.config.eval.batches or None):
            yield batch.to(device)
