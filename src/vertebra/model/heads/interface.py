"""`ActionHead`: what turns a backbone's states at the slots of a segment into chunks of actions, and learns to.

    … text │ ▢ ▢ ▢ ▢ ▢ ▢ │ </s>        `slots` places of the head's segment for each chunk; queries fill them
             └─── head ──┘
                   ▼
           [chunk, dims] in -1 … 1      targets: the items of the same segment in `features`

A head reads hidden states, one before each slot as the loss of tokens does, or the keys that every layer keeps. It
knows neither prompts nor units. Legend: M chunks, k slots of one, D width of hidden states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from vertebra.backbone.kept import LayerKeys
from vertebra.errors import ConfigError, InjectionError
from vertebra.sequence.batch import Batch
from vertebra.sequence.length import listed
from vertebra.sequence.roles import NO_VALUE


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkPlaces:
    """Where the chunks of a batch stand, in row order."""

    rows: torch.Tensor
    """[M] the row of each."""
    columns: torch.Tensor
    """[M, k] its slots."""

    def __len__(self) -> int:
        return len(self.rows)

    def before(self, hidden: torch.Tensor) -> torch.Tensor:
        """[B, L, D] -> [M, k, D]: the states one before each slot, which say what stands in it."""
        return hidden[self.rows[:, None], self.columns - 1]

    def at(self, table: torch.Tensor) -> torch.Tensor:
        """[B, L] -> [M, k]: what a table of the batch says of the slots."""
        return table[self.rows[:, None], self.columns]


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenByHeads:
    """What a pass of the backbone over a batch left for heads."""

    batch: Batch
    hidden: torch.Tensor | None = None
    """[B, L, D], as they enter the language model's head."""
    keys: tuple[LayerKeys, ...] | None = None


class ActionHead(nn.Module, ABC):
    """Chunks of `chunk` actions of `dims` numbers. Abstract or final."""

    kind: ClassVar[str]
    """Its name in a model folder."""
    reads: ClassVar[Literal["hidden", "keys"]]
    chunk: int
    dims: int
    width: int | None
    """Columns of the hidden states that it reads; None where it reads keys."""
    slots: int
    """Places in a sequence that one chunk takes."""
    early: ClassVar[int] = 0
    """How many of them, from the first, stand before the text."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What `type(self)(**settings)` needs to be built again, as plain data."""

    @abstractmethod
    def about(self) -> str:
        """What it is, in a few words."""

    @abstractmethod
    def loss(self, seen: SeenByHeads, at: ChunkPlaces, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The sum of the losses of `values` [M, chunk, dims] by `weights` [M, k], in fp32."""

    @abstractmethod
    def actions(self, seen: SeenByHeads, at: ChunkPlaces, **options: Any) -> torch.Tensor:
        """[M, chunk, dims] in fp32."""

    def refuse(self, options: dict[str, Any], *known: str) -> None:
        """Refuse options of a prediction that would have no effect."""
        given = [name for name, value in options.items() if value is not None]
        if given:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ConfigError(f"{', '.join(given)}: without effect on a head `{self.kind}`; {takes}")

    def check(self, values: torch.Tensor, segment: str) -> None:
        """Refuse values that are no chunks of this head."""
        if values.ndim != 3 or tuple(values.shape[1:]) != (self.chunk, self.dims):
            raise InjectionError(
                f"`{segment}` has values of shape {tuple(values.shape)}; its head learns chunks of {self.chunk} actions of "
                f"{self.dims} numbers, [chunks, {self.chunk}, {self.dims}]"
            )


class NoisyHead(ActionHead):
    """A head whose own numbers stand in its slots: a step of denoising is a pass of the whole model. Abstract."""

    @abstractmethod
    def embeddings(self, noisy: torch.Tensor, time: int) -> torch.Tensor:
        """[M, chunk, dims] and the time -> [M, slots, D]: what stands in its slots."""

    @abstractmethod
    def walk(self, steps: int | None = None) -> Iterator[tuple[int, float, float]]:
        """(time, what is left at it, what is left at the next) of each step, from the last time to the first."""

    @abstractmethod
    def stepped(self, noisy: torch.Tensor, noise: torch.Tensor, now: float, then: float) -> torch.Tensor:
        """A chunk with less noise in it, by the noise that `actions` saw."""


def chunks_of(batch: Batch, segment: str, slots: int) -> ChunkPlaces:
    """The chunks of a segment, `slots` places each; one error lists every row that has no whole number of them."""
    if segment not in batch["segments"]:
        empty = torch.zeros(0, dtype=torch.long, device=batch.device)
        return ChunkPlaces(rows=empty, columns=empty.view(0, slots))
    here = batch["slot"][..., 0] == batch["segments"].index(segment)
    counts = here.sum(1)
    if bool((counts % slots != 0).any()):
        faults = [f"row {row} has {count}" for row, count in enumerate(counts.tolist()) if count % slots]
        raise InjectionError(
            f"slots of `{segment}`: {listed(faults)}; its head takes {slots} for each chunk. Render the sequences anew "
            f'with a part {{"type": "{segment}", "count": {slots}}}'
        )
    rows, columns = here.nonzero(as_tuple=True)
    at = ChunkPlaces(rows=rows.view(-1, slots)[:, 0], columns=columns.view(-1, slots))
    _check_documents(batch, segment, at)
    return at


def _check_documents(batch: Batch, segment: str, at: ChunkPlaces) -> None:
    """A chunk stands in one document, behind something that says what it is about."""
    document = at.at(batch["document"])
    first = at.columns[:, :1] - 1
    before = batch["document"][at.rows[:, None], first.clamp(min=0)]
    wrong = (document != document[:, :1]).any(1) | (first < 0)[:, 0] | (before != document[:, :1])[:, 0]
    if bool(wrong.any()):
        rows = sorted({str(row) for row in at.rows[wrong].tolist()})
        raise InjectionError(
            f"rows {listed(rows)}: a chunk of `{segment}` begins a document, or stands in two. A head reads what is before "
            "the first slot: put the prompt there"
        )


def wide(numbers: torch.Tensor) -> torch.Tensor:
    """In fp32, or in fp64 where a model computes so: losses are small differences."""
    return numbers if numbers.dtype == torch.float64 else numbers.float()


def are_known(values: torch.Tensor) -> torch.Tensor:
    """Which numbers of chunks there are: behind the end of an episode there are none."""
    return values > NO_VALUE / 2


def require_sizes(**sizes: int) -> None:
    """Refuse sizes below 1, all of them at once."""
    wrong = [f"{name} is {size}" for name, size in sizes.items() if size < 1]
    if wrong:
        raise ConfigError(f"an action head whose {', '.join(wrong)}; expected 1 or more")
