"""How many rows are answered: everything but the model and the rows that the answers depend on. Data alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from vertebra import config
from vertebra.config import Bound
from vertebra.errors import ConfigError

Some = Annotated[int, Bound(least=1)]


@dataclass(frozen=True, kw_only=True)
class BulkSettings:
    """Choices of whoever asks."""

    shard: Some = 256
    """Rows of one file of answers: what is lost when a process ends is at most one shard of each."""
    batch: Some = 8
    """Rows that go through the model at once."""
    system: str | None = None
    """The system prompt of every row that brings none."""
    decoding: Mapping[str, Any] = field(default_factory=dict)
    """Names of `DecodeConfig`: max_new_tokens, temperature … With a temperature, row n draws from the stream `seed + n`,
    whoever answers it and beside whom."""

    def __post_init__(self) -> None:
        config.require_bounds(self)

    def of_documents(self) -> dict[str, Any]:
        """What `extract` and `ask` take of this. A document's values are copied from it, the surest first: nothing draws there,
        stops at a text, or reads a system prompt."""
        given = {"system": self.system, **self.decoding}
        # a seed is harmless where nothing is drawn, and has its meaning for the other rows
        unheard = [
            name for name, value in given.items() if value is not None and name not in ("max_new_tokens", "seed")
        ]
        if unheard:
            raise ConfigError(
                f"{', '.join(unheard)}: a row with a document is answered by values copied from it, which this does not "
                "change; ask rows with documents in a run without, or leave it out"
            )
        return {name: value for name, value in given.items() if name == "max_new_tokens"}

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**vars(self), "decoding": dict(self.decoding)}
