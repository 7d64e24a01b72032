"""Samples → batch: padding to the longest, rounded up, with the mask made along with it; several samples a row or one.

The same batch as `sequence.collate` of the joined sequences, but filled straight from the flat arrays: what a sample
leaves out (targets that are its ids, weights of 1) is never written down in between. Rows with slots go the general
way. Padding is known by the mask, never by the pad id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, Literal

import numpy as np
import torch

from vertebra.data.samples.samples import Vectors, as_sequence
from vertebra.errors import SequenceError
from vertebra.sequence.batch import Batch, collate
from vertebra.sequence.packing import join_features
from vertebra.sequence.tokens import NO_TARGET, Role, TokenSequence

Rows = Sequence[Sequence[Vectors]]
"""Batch rows; each a list of the samples that share it."""

_GENERAL = ("slot", "position")


class Collator:
    """How samples become a batch.

    multiple_of: round the length up, which tensor cores like. features: makes the raw items of a sample's slots
    ({segment: array [m, …]}) from what `Samples.extra` says.
    """

    def __init__(
        self,
        pad_id: int,
        *,
        side: Literal["right", "left"] = "right",
        multiple_of: int = 8,
        max_length: int | None = None,
        features: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    ) -> None:
        self.pad_id, self.side, self.multiple_of, self.max_length = pad_id, side, multiple_of, max_length
        self.features = features

    def __call__(self, rows: Rows, extras: Sequence[Sequence[Mapping[str, Any]]] | None = None) -> Batch:
        """One batch. `extras` is what belongs to each sample beside its tokens, in the same nesting."""
        names = set().union(*[vectors for row in rows for vectors in row])
        batch = self._flat(rows, names) if names.isdisjoint(_GENERAL) else self._general(rows, extras)
        labels = [] if extras is None else [extra["label"] for row in extras for extra in row if "label" in extra]
        if labels:
            if len(labels) != len(rows):
                raise SequenceError(f"{len(labels)} labels for {len(rows)} rows; labelled samples are not packed")
            batch["labels"] = torch.tensor(labels)
        return batch

    def with_features(self, features: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Collator:
        """The same collator, whose samples' items are made in another way."""
        made = copy(self)
        made.features = features
        return made

    def _general(self, rows: Rows, extras: Sequence[Sequence[Mapping[str, Any]]] | None) -> Batch:
        joined = [_joined([as_sequence(vectors) for vectors in row]) for row in rows]
        features = None
        if self.features is not None and extras is not None:
            features = [join_features([self.features(extra) for extra in row]) for row in extras]
        return collate(
            joined,
            features,
            pad_id=self.pad_id,
            side=self.side,
            multiple_of=self.multiple_of,
            max_length=self.max_length,
        )

    def _flat(self, rows: Rows, names: set[str]) -> Batch:
        """Batches of a few rows cost what the calls cost, so each table is made by one or two of them."""
        lengths = [len(row[0]["ids"]) if len(row) == 1 else sum([len(one["ids"]) for one in row]) for row in rows]
        longest = max(lengths, default=0)
        if not longest or not min(lengths) or (self.max_length and longest > self.max_length):
            return self._general(rows, None)  # which says what is wrong
        width = -(-longest // self.multiple_of) * self.multiple_of
        width = min(width, self.max_length or width)
        column, count = np.arange(width), np.array(lengths)[:, None]
        right = self.side == "right"
        real = column < count if right else column >= width - count
        fill = _Filler(rows, real.shape, [0] * len(rows) if right else [width - length for length in lengths])
        ids = fill("ids", np.int64, self.pad_id)
        # What no sample says follows from the mask: TEXT is 1 and PAD is 0, a lone document is 0 and padding −1.
        mask = real.astype(np.int64)
        if "document" in names or len(fill.spans) > len(rows):
            document, position = fill.documents()
        else:
            document = mask.astype(np.int32) - 1
            position = (column if right else column - (width - count)) * mask
        tables = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": position,
            "targets": fill("target", np.int64, NO_TARGET) if "target" in names else np.where(real, ids, NO_TARGET),
            "weights": fill.weights() if "weight" in names else real.astype(np.float32),
            "role": fill("role", np.int8, 0) if "role" in names else real.view(np.int8),
            "type": fill("type", np.int32, 0) if "type" in names else np.zeros(real.shape, np.int32),
            "block": fill.blocks() if "block" in names else np.zeros(real.shape, np.int32),
            "slot": np.full((*real.shape, 2), -1, np.int32),
            "document": document,
        }
        batch = Batch({key: torch.from_numpy(table) for key, table in tables.items()})
        batch["segments"], batch["features"] = (), {}
        return batch


_INSTEAD: dict[str, float] = {"weight": 1.0, "role": int(Role.TEXT), "type": 0}
"""What a sample means that does not say it, where others of its batch do."""


class _Filler:
    """Puts what samples say into tables [B, L], by slices: they copy faster than any index."""

    def __init__(self, rows: Rows, shape: tuple[int, ...], starts: Sequence[int]) -> None:
        self.shape = shape
        self.spans: list[tuple[int, slice, Vectors]] = []
        """(row, positions, sample) of every sample, in order."""
        for number, (row, at) in enumerate(zip(rows, starts, strict=True)):
            for vectors in row:
                stop = at + len(vectors["ids"])
                self.spans.append((number, slice(at, stop), vectors))
                at = stop

    def __call__(self, name: str, dtype: Any, padding: int) -> np.ndarray:
        table = np.full(self.shape, padding, dtype) if padding else np.zeros(self.shape, dtype)
        instead = _INSTEAD.get(name)
        for row, span, vectors in self.spans:
            value = vectors.get(name, instead)
            table[row, span] = vectors["ids"] if value is None else value  # a target left out is the id itself
        return table

    def weights(self) -> np.ndarray:
        table = self("weight", np.float32, 0)
        if not (table.min() >= 0 and table.max() < np.inf):
            raise SequenceError(f"weights must be 0 or more and finite; they are {table.min()} to {table.max()}")
        return table

    def documents(self) -> tuple[np.ndarray, np.ndarray]:
        """Which document each position is of, counted on through the row, and its place in it."""
        document, position = np.full(self.shape, -1, np.int32), np.zeros(self.shape, np.int64)
        ramp = np.arange(self.shape[1])
        next_document = [0] * self.shape[0]
        for row, span, vectors in self.spans:
            own = vectors.get("document")
            if own is None:
                document[row, span] = next_document[row]
                position[row, span] = ramp[: span.stop - span.start]
                next_document[row] += 1
            else:
                document[row, span] = own + next_document[row]
                position[row, span] = _restarted(own)
                next_document[row] += int(own.max()) + 1
        return document, position

    def blocks(self) -> np.ndarray:
        """Blocks of attention; those of one sample are none of the next one's. Branches need no other numbers: they lie
        in documents of their own, and see nothing else there either way."""
        table = np.zeros(self.shape, np.int32)
        next_block = [0] * self.shape[0]
        for row, span, vectors in self.spans:
            if "block" in vectors:
                own = np.asarray(vectors["block"])
                table[row, span] = np.where(own > 0, own + next_block[row], own)
                next_block[row] += max(int(own.max()), 0)
        return table


def _restarted(document: np.ndarray) -> np.ndarray:
    """Positions that begin at 0 with every document."""
    starts = np.concatenate([[True], document[1:] != document[:-1]])
    index = np.arange(len(document))
    return index - np.maximum.accumulate(np.where(starts, index, 0))


def _joined(parts: list[TokenSequence]) -> TokenSequence:
    return parts[0] if len(parts) == 1 else TokenSequence.join(parts, new_documents=True)
