"""The `cache` settings of a recipe, put to work on a run's data: what is frozen is computed now, and never again."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from vertebra.data.encode.items import showing
from vertebra.tasks.chain import TaskData
from vertebra.training.cached.layers import UpperLayers, cached_layers, lower_features
from vertebra.training.cached.tower import cached_images
from vertebra.training.config import RunConfig


def with_cache(model: Any, data: TaskData, config: RunConfig) -> tuple[TaskData, UpperLayers | None]:
    """The data with what is kept in place of what makes it, and the layers that are left to run."""
    precision = config.optim.precision
    autocast = partial(_autocast, model.device.type, precision) if config.cache.tower or config.cache.layers else None
    upper = None
    if config.cache.tower and autocast is not None:
        samples = [some for some in (data.train, data.held_out) if some is not None]
        makers: Any = data.collator.features
        makers = showing(makers, cached_images(model, samples, makers, autocast, precision=precision))
        data = replace(data, collator=data.collator.with_features(makers))
    if config.cache.layers and autocast is not None:
        upper = UpperLayers(model)
        lowered = partial(cached_layers, model, upper, collate=data.collator, autocast=autocast, precision=precision)
        data = replace(
            data,
            train=None if data.train is None else lowered(data.train),
            held_out=None if data.held_out is None else lowered(data.held_out),
            collator=data.collator.with_features(lower_features),
        )
    return data, upper


def _autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """What the trainer's forward passes run under."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device, dtype)
