"""`ItemEncoder` and `Part`: what turns the raw items of one segment into embeddings of the model's width.

    features["image"] [M, 3, H, W] ──► encoder [M, k, width] ──► projector [M, k, D] ──► inject

An encoder says how many slots one item fills and what its raw items must look like; a part adds the projector and how
the embeddings enter: in slots where the prompt has them, in slots right after BOS, or added to tokens. Knows no model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from vertebra.errors import UnknownNameError
from vertebra.model.projectors import Projector, mark

ItemFault = tuple[int | None, str]
"""Which item (None: all of them), and what is wrong with it and was expected."""

Place = Literal["slots", "anchored", "added"]
PLACES: tuple[Place, ...] = ("slots", "anchored", "added")


class ItemEncoder(nn.Module, ABC):
    """Raw items of a segment to `slots` vectors of `width` each. Abstract or final."""

    kind: ClassVar[str]
    """Its name in a model folder."""
    width: int
    """Columns of what it makes."""
    slots: int
    """How many slots one item fills."""
    reads_text: bool = False
    """Whether it is also given the text of the row: its mean embedding, as FiLM takes it."""
    pretrained: ClassVar[bool] = False
    """Whether it comes with knowledge; one that does not has to be trained with the projector, from the first stage."""

    @abstractmethod
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """[M, …] raw items -> [M, slots, width]."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What `type(self)(**settings)` needs to be built again, as plain data."""

    @abstractmethod
    def about(self) -> str:
        """What it is and what it reads, in a few words."""

    @abstractmethod
    def prepare(self, items: Sequence[Any]) -> np.ndarray:
        """Items as people have them (image files, lists of numbers) as the array that goes into a batch."""

    @abstractmethod
    def faults(self, values: torch.Tensor) -> list[ItemFault]:
        """What is wrong with raw items of a batch; empty where all is well."""

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """`count` ordinary raw items, to measure how large the outputs are."""

    def absent(self, values: torch.Tensor) -> torch.Tensor | None:
        """[M, slots] where an item says that there is nothing (a box of -100); None: nowhere."""
        return None


def are_features(values: torch.Tensor) -> bool:
    """Whether a batch brings what an encoder made earlier, [M, slots, width], and not what it reads."""
    return values.ndim == 3 and values.is_floating_point()


class Part(nn.Module):
    """One segment of a model: encoder, projector, and how its embeddings enter."""

    def __init__(self, encoder: ItemEncoder, projector: Projector, *, place: Place = "slots") -> None:
        super().__init__()
        if place not in PLACES:
            raise UnknownNameError("place", place, PLACES)
        self.encoder = encoder
        self.projector = projector
        self.place: Place = place
        self.drawn: str | None = None
        """A mark of the projector as it was drawn; None where it came with knowledge, or nobody knows."""

    @property
    def slots(self) -> int:
        """How many slots one item fills."""
        return self.encoder.slots

    @property
    def width(self) -> int:
        """Columns of the embeddings that it makes."""
        return self.projector.width_out

    @property
    def added(self) -> bool:
        return self.place == "added"

    @property
    def untrained(self) -> bool:
        """Whether the projector is still as it was drawn, so that nothing has aligned it yet."""
        return self.drawn is not None and self.drawn == mark(self.projector)

    def faults(self, values: torch.Tensor) -> list[ItemFault]:
        """What is wrong with items of a batch: raw ones, or features that the encoder made earlier."""
        if not are_features(values):
            return self.encoder.faults(values)
        expected = (self.slots, self.encoder.width)
        if tuple(values.shape[1:]) == expected:
            return []
        return [(None, f"features have the shape {tuple(values.shape[1:])}; this encoder makes {expected}")]

    def forward(self, values: torch.Tensor, text: torch.Tensor | None = None) -> torch.Tensor:
        """[M, …] raw items, or [M, slots, width] features of them -> [M, slots, D] embeddings.

        `text` [M, D]: for an encoder that reads text, the mean embedding of each item's text.
        """
        earlier = are_features(values)
        if earlier:
            features = values
        else:
            features = self.encoder(values, text) if self.encoder.reads_text else self.encoder(values)
        embeds = self.projector(features)
        absent = self.encoder.absent(values) if self.added and not earlier else None
        # Nothing is added to a token without a box; a slot without one holds the encoder's own "no box".
        return embeds if absent is None else embeds.masked_fill(absent[..., None], 0)
