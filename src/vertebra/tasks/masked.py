"""Kind `masked`: an encoder on plain text whose words are hidden: new masks in every epoch, fixed ones for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from vertebra.data.encode.encoders import Encoder, WordEncoder
from vertebra.data.encode.masks import Masked, Masking, masked_blocks
from vertebra.data.samples.samples import Samples
from vertebra.data.samples.table import Table
from vertebra.tasks.config import DataConfig
from vertebra.tasks.task import Job, Task


class MaskedText(Task):
    """Hidden words are predicted from both sides."""

    name: ClassVar[str] = "masked"
    reads: ClassVar[tuple[str, ...]] = ("text",)
    settings: ClassVar[tuple[str, ...]] = ("block",)
    for_encoder: ClassVar[bool] = True
    shift: ClassVar[bool] = False

    def load_encoder(self, name: str, data: DataConfig, *, pretrained: bool) -> Any:
        from vertebra.data.encode.masked_model import load_masked_lm

        return load_masked_lm(name, pretrained=pretrained)

    def encoder(self, job: Job) -> Encoder:
        return WordEncoder(job.model.tokenizer)

    def samples(self, table: Table, job: Job) -> Samples:
        masking = Masking(seed=job.seed, fixed=True)
        return masked_blocks(table, job.model.tokenizer, size=job.size, masking=masking)

    def trained(self, samples: Samples, job: Job) -> Samples:
        assert isinstance(samples, Masked), "they are those of `samples`"
        return Masked(samples.samples, job.model.tokenizer, Masking(seed=job.seed))

    def shown(self, model: Any, job: Job, prompts: Sequence[str], length: int) -> list[dict[str, str]]:
        """The prompts with their masks filled."""
        return [{"prompt": text, "answer": model.fill(text)[0].text} for text in prompts]
