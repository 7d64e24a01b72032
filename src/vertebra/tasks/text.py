"""Kind `text`: a language model on plain text, cut into full blocks or row by row; some words may weigh more."""

from __future__ import annotations

from typing import ClassVar

from vertebra.data.encode.encoders import Encoder, TextEncoder
from vertebra.data.encode.keytokens import KeyTokens, Weighted
from vertebra.data.samples.causal import Blocks
from vertebra.data.samples.samples import Samples
from vertebra.data.samples.table import Table
from vertebra.tasks.config import DataConfig
from vertebra.tasks.task import Job, Task


class PlainText(Task):
    """Every token is predicted from those before it."""

    name: ClassVar[str] = "text"
    reads: ClassVar[tuple[str, ...]] = ("text",)
    settings: ClassVar[tuple[str, ...]] = ("block", "rows", "too_long", "keys", "key_weight")

    def encoder(self, job: Job) -> Encoder:
        return TextEncoder(job.model.tokenizer)

    def samples(self, table: Table, job: Job) -> Samples:
        return super().samples(table, job) if job.data.rows else Blocks(table, job.size)

    def trained(self, samples: Samples, job: Job) -> Samples:
        if not job.data.keys:
            return samples
        keys = KeyTokens(job.model.tokenizer, job.data.keys)
        return Weighted(samples, keys, boost=job.data.key_weight, by="token")

    def packs(self, data: DataConfig) -> bool:
        return data.rows  # blocks are full already
