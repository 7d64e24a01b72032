"""The data that a recipe names, for the model that it names."""

from __future__ import annotations

from typing import Any

from vertebra.data.model_facts import ModelFacts
from vertebra.errors import DataError
from vertebra.tasks.chain import TaskData, read_data
from vertebra.tasks.task import Job
from vertebra.training.config import RunConfig


def job_of(config: RunConfig, model: Any) -> Job:
    """What a run's task works on."""
    return Job(data=config.data, model=ModelFacts.of(model), seed=config.seed)


def build_data(config: RunConfig, model: Any) -> TaskData:
    """Everything that a run reads."""
    return read_data(job_of(config, model), tokens=config.model.tokens)


def check_size(data: TaskData, world: int) -> None:
    """Fewer samples than ranks cannot be shared out."""
    if data.train is not None and len(data.train) < world:
        raise DataError(
            f"{len(data.train)} samples for {world} ranks: some would have nothing. Use at most {len(data.train)} ranks, "
            "or more data"
        )
