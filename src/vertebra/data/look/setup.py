"""`Setup`: a data set, read and encoded for one model, as a report looks at it."""

from __future__ import annotations

from dataclasses import dataclass

from vertebra.data.encode.encoders import Encoder
from vertebra.data.model_facts import ModelFacts
from vertebra.data.read.formats import Reader
from vertebra.data.read.labels import Labels
from vertebra.data.read.rows import Source
from vertebra.data.samples.samples import Samples
from vertebra.data.samples.table import Table


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Data and model, put together."""

    name: str
    """What messages call the data."""
    sources: tuple[tuple[Source, Reader], ...]
    """Where its rows come from, and what they mean; several of a mixture."""
    model: ModelFacts
    kind: str
    """What is trained on it."""
    encoder: Encoder
    table: Table
    """Every row, encoded: a conversation, a text, a pair."""
    samples: Samples
    """What batches are made of: the rows, or blocks of them, masked or not."""
    limit: int
    """The most positions of a row of a batch."""
    whole: bool
    """Whether samples are whole rows, which may be too long; else they are cut to fit."""
    labels: Labels | None = None

    @property
    def format(self) -> str:
        """What its rows are."""
        return ", ".join(dict.fromkeys(reader.name for _, reader in self.sources))
