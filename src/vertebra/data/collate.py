"""Samples → batch: padding to the longest, rounded up, with the mask made along with it; several samples a row or one.

The same batch as `sequence.collate` of the joined sequences, but filled straight from the flat arrays: what a sample
leaves out (targets that are its ids, weights of 1) is never written down in between. Rows with slots go the general
way. Padding is known by the mask, never by the pad id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from vertebra.data.samples import Vectors, as_sequence
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
        general = any(name in vectors for row in rows for vectors in row for name in _GENERAL)
        batch = self._general(rows, extras) if general else self._flat(rows)
        labels = [] if extras is None else [extra["label"] for row in extras for extra in row if "label" in extra]
        if labels:
            if len(labels) != len(rows):
                raise SequenceError(f"{len(labels)} labels for {len(rows)} rows; labelled samples are not packed")
            batch["labels"] = torch.tensor(labels)
        return batch

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

    def _flat(self, rows: Rows) -> Batch:
        lengths = [sum(len(vectors["ids"]) for vectors in row) for row in rows]
        longest = max(lengths, default=0)
        if not longest or not min(lengths) or (self.max_length and longest > self.max_length):
            return self._general(rows, None)  # which says what is wrong
        width = -(-longest // self.multiple_of) * self.multiple_of
        width = min(width, self.max_length or width)
        tables = {key: np.zeros((len(rows), width), dtype) for key, dtype in _TYPES.items()}
        tables["input_ids"].fill(self.pad_id)
        tables["targets"].fill(NO_TARGET)
        tables["document"].fill(-1)
        ramp = np.arange(longest)
        for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            lines = {key: table[number] for key, table in tables.items()}
            at = 0 if self.side == "right" else width - length
            lines["attention_mask"][at : at + length] = 1
            documents = blocks = 0
            for vectors in row:
                span = slice(at, at + len(vectors["ids"]))
                documents = _write(lines, span, vectors, documents, ramp)
                if "block" in vectors:  # blocks of one sample are no blocks of the next
                    own = np.asarray(vectors["block"])
                    lines["block"][span] = np.where(own > 0, own + blocks, 0)
                    blocks += int(own.max())
                at = span.stop
        weights = tables["weights"]
        if not (weights.min() >= 0 and weights.max() < np.inf):
            raise SequenceError(f"weights must be 0 or more and finite; they are {weights.min()} to {weights.max()}")
        batch = Batch({key: torch.from_numpy(table) for key, table in tables.items()})
        batch["slot"] = torch.full((len(rows), width, 2), -1, dtype=torch.int32)
        batch |= {"segments": (), "features": {}}
        return Batch(batch)


_TYPES = {
    "input_ids": np.int64,
    "attention_mask": np.int64,
    "position_ids": np.int64,
    "targets": np.int64,
    "weights": np.float32,
    "role": np.int8,
    "type": np.int32,
    "block": np.int32,
    "document": np.int32,
}
"""The tensors of a batch without slots, as `sequence.collate` types them; a test holds them against it."""


def _write(lines: Mapping[str, np.ndarray], span: slice, vectors: Vectors, document: int, ramp: np.ndarray) -> int:
    """One sample into its place in the row; returns the number of the row's next document."""
    ids = vectors["ids"]
    lines["input_ids"][span] = ids
    lines["targets"][span] = vectors.get("target", ids)
    lines["weights"][span] = vectors.get("weight", 1.0)
    lines["role"][span] = vectors.get("role", int(Role.TEXT))
    if "type" in vectors:
        lines["type"][span] = vectors["type"]
    own = vectors.get("document")
    if own is None:
        lines["document"][span] = document
        lines["position_ids"][span] = ramp[: len(ids)]
        return document + 1
    lines["document"][span] = own + document
    lines["position_ids"][span] = _restarted(own)
    return document + int(own.max()) + 1


def _restarted(document: np.ndarray) -> np.ndarray:
    """Positions that begin at 0 with every document."""
    starts = np.concatenate([[True], document[1:] != document[:-1]])
    index = np.arange(len(document))
    return index - np.maximum.accumulate(np.where(starts, index, 0))


def _joined(parts: list[TokenSequence]) -> TokenSequence:
    return parts[0] if len(parts) == 1 else TokenSequence.join(parts, new_documents=True)
