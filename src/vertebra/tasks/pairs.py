"""Kind `pairs`: a classifier of one or two sentences, measured by accuracy and F1 on held-out rows, counted over all ranks.

F1 of two classes is that of class 1, as GLUE counts it for MRPC and QQP; of more, the mean over the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from vertebra.data.encode.encoders import Encoder
from vertebra.data.encode.pairs import Classified, PairEncoder
from vertebra.data.samples.samples import Samples
from vertebra.data.samples.table import Table
from vertebra.tasks.classes import classes_of
from vertebra.tasks.config import DataConfig
from vertebra.tasks.task import HeldOut, Job, Task

if TYPE_CHECKING:
    import torch


class Pairs(Task):
    """The class of a row is predicted from all of it."""

    name: ClassVar[str] = "pairs"
    reads: ClassVar[tuple[str, ...]] = ("pairs",)
    format: ClassVar[str | None] = "pairs"
    settings: ClassVar[tuple[str, ...]] = ("block", "labels")
    for_encoder: ClassVar[bool] = True
    shift: ClassVar[bool] = False

    def load_encoder(self, name: str, data: DataConfig, *, pretrained: bool) -> Any:
        from vertebra.data.encode.classifier import load_classifier

        return load_classifier(name, classes_of(data, self.format), pretrained=pretrained).train()

    def encoder(self, job: Job) -> Encoder:
        labels = job.model.labels or classes_of(job.data, self.format)
        assert labels is not None, "all rows are pairs"
        return PairEncoder(job.model.tokenizer, labels, max_length=job.size)

    def samples(self, table: Table, job: Job) -> Samples:
        return Classified(table)

    def measure(self, learner: Any, held_out: HeldOut) -> dict[str, float]:
        import torch

        from vertebra.sequence.loss import supervised_positions

        count = len(learner.model.labels)
        confusion = torch.zeros((count, count), dtype=torch.float64)
        for batch in held_out.batches():
            at = supervised_positions(batch, shift=False)  # rows that only fill up count nothing
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "type")}
            logits = learner(call=lambda model, inputs=inputs: model(**inputs)["logits"])
            guessed = at.select(logits).argmax(-1).cpu()
            ones = torch.ones(len(at), dtype=torch.float64)
            confusion.index_put_((at.targets.cpu(), guessed), ones, accumulate=True)
        return scores(held_out.over_ranks(confusion))

    def shown(self, model: Any, job: Job, prompts: Sequence[str], length: int) -> list[dict[str, str]]:
        """The likeliest class of each prompt, read as a lone sentence."""
        found = model.classify([(text, None) for text in prompts]) if prompts else []
        return [
            {"prompt": text, "answer": f"{name} ({chance:.0%})"}
            for text, (name, chance) in zip(prompts, found, strict=True)
        ]


def scores(confusion: torch.Tensor) -> dict[str, float]:
    """From how often each class (row) was taken for each (column)."""
    hits, total = confusion.diagonal(), confusion.sum().clamp(min=1)
    f1 = 2 * hits / (confusion.sum(0) + confusion.sum(1)).clamp(min=1)
    return {"accuracy": float(hits.sum() / total), "f1": float(f1[1] if len(f1) == 2 else f1.mean())}
