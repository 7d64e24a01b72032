"""How well a classifier tells its classes apart: accuracy and F1 on held-out rows, counted over all ranks.

F1 of two classes is that of class 1, as GLUE counts it for MRPC and QQP; of more, the mean over the classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist

from vertebra.data.read.labels import Labels
from vertebra.data.read.open import open_source
from vertebra.errors import DataError
from vertebra.sequence.loss import supervised_positions
from vertebra.training.config import RunConfig


def classes_of(config: RunConfig) -> Labels:
    """The classes of a run's data: declared, or inferred where nothing about the rows' labels is doubtful."""
    source = open_source(config.data.path)
    labels = Labels.of(source, declared=config.data.labels)
    if labels.names is None:
        raise DataError(
            f"{source.name}: the labels are numbers of a regression, and kind `pairs` trains a classifier. Make classes of "
            "them, and declare these: data.labels=[…]"
        )
    counts = labels.counts
    outliers = labels.outliers(counts)
    if outliers or len(labels) < 2:
        listed = ", ".join(f"{name} {counts[name]:,}" for name in labels.names) or "none"
        what = f"{', '.join(outliers)} may be a slip" if outliers else "a classifier needs two classes or more"
        raise DataError(
            f"{source.name}: inferred labels with their rows: {listed}; {what}. Mend the rows (`vertebra data check` "
            "names them), or declare the classes: data.labels=[…]"
        )
    return labels


@torch.no_grad()
def classified(learner: Any, batches: Iterable[Any], *, limit: int, world: int) -> dict[str, float]:
    """Accuracy and F1 of a classifier; `limit`: at most so many batches, 0: all."""
    model = learner.model
    count = len(model.labels)
    device = next(learner.parameters()).device
    confusion = torch.zeros((count, count), dtype=torch.float64)
    was = learner.training
    learner.eval()
    for batch in islice(batches, limit or None):
        moved = batch.to(device)
        at = supervised_positions(moved, shift=False)  # rows that only fill up count nothing
        inputs = {name: moved[name] for name in ("input_ids", "attention_mask", "type")}
        logits = learner(call=lambda inner, inputs=inputs: inner(**inputs)["logits"])
        said = at.select(logits).argmax(-1)
        confusion.index_put_((at.targets.cpu(), said.cpu()), torch.ones(len(at), dtype=torch.float64), accumulate=True)
    learner.train(was)
    if world > 1:
        dist.all_reduce(confusion)
    return scores(confusion)


def scores(confusion: torch.Tensor) -> dict[str, float]:
    """From how often each class (row) was taken for each (column)."""
    hits, total = confusion.diagonal(), confusion.sum().clamp(min=1)
    f1 = 2 * hits / (confusion.sum(0) + confusion.sum(1)).clamp(min=1)
    return {"accuracy": float(hits.sum() / total), "f1": float(f1[1] if len(f1) == 2 else f1.mean())}
