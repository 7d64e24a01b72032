"""The data that a recipe names, for the model that it names."""

from __future__ import annotations

from typing import Any

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.weights import parameters_on_meta
from vertebra.data.model_facts import ModelFacts
from vertebra.data.samples.samples import Samples
from vertebra.errors import DataError
from vertebra.tasks.chain import TaskData, read_data
from vertebra.tasks.task import Job
from vertebra.training.config import RunConfig


def job_of(config: RunConfig, model: Any) -> Job:
    """What a run's task works on."""
    return Job(data=config.data, model=ModelFacts.of(model), seed=config.seed, tokens=config.model.tokens)


def outlined_job(config: RunConfig) -> Job:
    """The same before there is a model: no weights are loaded."""
    from vertebra.training.building import grow
    from vertebra.training.planning.outline import described_tower, outlined_parts

    model = config.model
    if config.task.for_encoder:
        facts = ModelFacts.find(model.backbone)
    else:
        backbone = load_backbone(
            model.start or model.backbone,
            inference_mode=True,
            llm_max_length=model.max_length,
            builder=None if model.start else model.builder,
        )
        if model.start is None:
            grow(backbone, config)
        with parameters_on_meta():
            parts = outlined_parts(config, backbone.embedding_width, described_tower)
        facts = ModelFacts.of_backbone(model.start or model.backbone, backbone, parts)
    return Job(data=config.data, model=facts, seed=config.seed, tokens=model.tokens)


def build_data(config: RunConfig, model: Any) -> TaskData:
    """Everything that a run reads."""
    return read_data(job_of(config, model))


def check_size(samples: Samples | None, world: int) -> None:
    """Fewer samples than ranks cannot be shared out; how many a stream has shows only at its end."""
    if samples is not None and len(samples) < world:
        raise DataError(
            f"{len(samples)} samples for {world} ranks: some would have nothing. Use at most {len(samples)} ranks, "
            "or more data"
        )
