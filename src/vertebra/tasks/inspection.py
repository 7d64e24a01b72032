"""Data put together with a model for a look at it: every row, faults and all.

It reads the way that training reads, so that what a report finds is what a run would meet.
"""

from __future__ import annotations

from dataclasses import replace

from vertebra.data.look.setup import Setup
from vertebra.data.samples.table import Table
from vertebra.errors import ConfigError, TooLongError
from vertebra.tasks.chain import encoded, require_fit
from vertebra.tasks.classes import labels_of
from vertebra.tasks.registry import task_of
from vertebra.tasks.task import Job


def set_up(job: Job) -> Setup:
    """Read all rows of a job's data, those held out too. With `on_bad="skip"` nothing about them stops it."""
    task, data = task_of(job.data), job.data
    require_fit(task, job.model)
    if not task.reads:
        raise ConfigError(f"kind `{data.kind}` makes its own samples: there are no rows to look at")
    parts = data.single().values()
    labels = job.model.labels or labels_of(data, task.format)
    job = replace(job, model=replace(job.model, labels=labels))
    encoder = task.encoder(job)
    opened = [part.source() for part in parts]
    sources = tuple((source, part.settled(source, task.format)) for part, source in zip(parts, opened, strict=True))
    tables = [encoded(task, part, encoder, source) for part, source in zip(parts, opened, strict=True)]
    table = tables[0]
    if len(tables) > 1:
        table = Table([chunk for one in tables for chunk in one.chunks], meta=tables[0].meta)
    try:
        samples = task.samples(table, job)
    except TooLongError:  # the report lists them
        samples = table
    return Setup(
        name=data.named,
        sources=sources,
        model=job.model,
        kind=data.kind,
        encoder=encoder,
        table=table,
        samples=samples,
        limit=job.size,
        whole=task.packs(data),
        labels=labels,
    )
