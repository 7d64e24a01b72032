"""Evaluation during training: the held-out loss by weight over all ranks, for policies how often they succeed, for classifiers
their accuracy and F1."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist

from vertebra import log
from vertebra.sequence.loss import count_items
from vertebra.training.config import RunConfig
from vertebra.training.data import RunData
from vertebra.training.learner import Learner
from vertebra.training.pairs import classified
from vertebra.training.squares import Squares
from vertebra.training.success import success


class Evaluator:
    """Called with the learner; gives `loss` and what else the task knows."""

    def __init__(self, config: RunConfig, data: RunData) -> None:
        self.config, self.data = config, data
        self.world = int(os.environ.get("WORLD_SIZE", "1"))

    @classmethod
    def of(cls, config: RunConfig, data: RunData) -> Evaluator | None:
        return cls(config, data) if data.held_out is not None else None

    @torch.no_grad()
    def __call__(self, learner: Learner) -> dict[str, float]:
        loader = self.data.eval_loader(self.config, rank=log.rank(), world=self.world)
        assert loader is not None, "made only where samples are held out"
        device = next(learner.parameters()).device
        was = learner.training
        learner.eval()
        summed = torch.zeros(2, dtype=torch.float64)
        for number, batch in enumerate(loader):
            if self.config.eval.batches and number >= self.config.eval.batches:
                break
            moved = batch.to(device)
            summed[0] += learner(**moved, num_items_in_batch=torch.ones((), device=device))["loss"].double().cpu()
            summed[1] += count_items(moved, shift=learner.shift).double().cpu()
        learner.train(was)
        if self.world > 1:
            dist.all_reduce(summed)
        found: dict[str, float] = {"loss": float(summed[0] / summed[1].clamp(min=1e-9)), "items": float(summed[1])}
        return found | self._task(learner)

    def _task(self, learner: Any) -> dict[str, float]:
        if self.config.data.kind == "pairs":
            loader = self.data.eval_loader(self.config, rank=log.rank(), world=self.world)
            assert loader is not None, "made only where samples are held out"
            return classified(learner, loader, limit=self.config.eval.batches, world=self.world)
        squares = self.data.held_out
        if not isinstance(squares, Squares) or self.world > 1:
            return {}
        return {"success": success(learner.model, squares)}
