"""Samples → batch: padding to the longest, rounded up, with the mask made along with it; several samples a row or one.

The same batch as `sequence.collate` of the joined sequences, but filled straight from the flat arrays: what a sample
leaves out (targets that are its ids, weights of 1) is never written down in between. Rows with slots or blocks go
the general way. Padding is known by the mask, never by the pad id.
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
from vertebra.sequence.tokens import NO_TARGET, TokenSequence

Rows = Sequence[Sequence[Vectors]]
"""Batch rows; each a list of the samples that share it."""

_GENERAL = ("slot", "block", "position")


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
        samples = [vectors for row in rows for vectors in row]
        lengths = np.array([sum(len(vectors["ids"]) for vectors in row) for row in rows])
        if not len(rows) or not lengths.min() or (self.max_length and lengths.max() > self.max_length):
            return self._general(rows, None)  # which says what is wrong
        width = -(-int(lengths.max()) // self.multiple_of) * self.multiple_of
        width = min(width, self.max_length or width)
        column = np.arange(width)
        real = column < lengths[:, None] if self.side == "right" else column >= width - lengths[:, None]
        fill = _Filler(real)
        mask = real.astype(np.int64)
        ids = _concatenated(samples, "ids")
        batch: dict[str, Any] = {
            "input_ids": fill(ids, self.pad_id, np.int64),
            "attention_mask": torch.from_numpy(mask),
        }
        document = _documents(rows)
        if document is None:
            position = column if self.side == "right" else column - (width - lengths[:, None])
            batch["position_ids"] = torch.from_numpy(np.where(real, position, 0))
        else:
            batch["position_ids"] = fill(_restarted(document, lengths), 0, np.int64)
        batch["targets"] = fill(_concatenated(samples, "target", instead="ids"), NO_TARGET, np.int64)
        batch["weights"] = _weights(samples, real, fill)
        given = any("role" in vectors for vectors in samples)  # TEXT is 1 and PAD is 0: plain text is the mask
        batch["role"] = fill(_concatenated(samples, "role", 1), 0, np.int64) if given else torch.from_numpy(mask.copy())
        given = any("type" in vectors for vectors in samples)
        none = torch.zeros(real.shape, dtype=torch.int64)
        batch["type"] = fill(_concatenated(samples, "type", 0), 0, np.int64) if given else none
        batch["block"] = torch.zeros(real.shape, dtype=torch.int64)
        batch["slot"] = torch.full((*real.shape, 2), -1)
        batch["document"] = torch.from_numpy(mask - 1) if document is None else fill(document, -1, np.int64)
        batch["segments"] = ()
        batch["features"] = {}
        return Batch(batch)


class _Filler:
    """Puts flat values where a batch is real, in row order."""

    def __init__(self, real: np.ndarray) -> None:
        self.shape = real.shape
        self.at = np.flatnonzero(real)

    def __call__(self, values: np.ndarray, padding: float, dtype: Any) -> torch.Tensor:
        filled = np.full(self.shape[0] * self.shape[1], padding, dtype)
        filled[self.at] = values
        return torch.from_numpy(filled.reshape(self.shape))


def _concatenated(samples: Sequence[Vectors], name: str, default: float = 0, *, instead: str = "") -> np.ndarray:
    """A vector of all samples; one that does not say it has a default, or what another vector says."""
    parts = []
    for vectors in samples:
        value = vectors.get(name)
        if value is None:
            value = vectors[instead] if instead else default
        parts.append(np.full(len(vectors["ids"]), value) if np.ndim(value) == 0 else np.asarray(value))
    return np.concatenate(parts)


def _weights(samples: Sequence[Vectors], real: np.ndarray, fill: _Filler) -> torch.Tensor:
    if not any("weight" in vectors for vectors in samples):
        return torch.from_numpy(real.astype(np.float32))
    weights = _concatenated(samples, "weight", 1.0)
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise SequenceError(f"weights must be 0 or more and finite; the smallest is {weights.min()}")
    return fill(weights, 0, np.float32)


def _documents(rows: Rows) -> np.ndarray | None:
    """Which document of its row each position is, or None where every row is one."""
    if all(len(row) == 1 and "document" not in row[0] for row in rows):
        return None
    parts = []
    for row in rows:
        next_document = 0
        for vectors in row:
            own = np.asarray(vectors.get("document", 0))
            own = np.full(len(vectors["ids"]), own) if own.ndim == 0 else own
            parts.append(own + next_document)
            next_document += int(own.max()) + 1
    return np.concatenate(parts)


def _restarted(document: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions that begin at 0 with every document, and with every row."""
    starts = np.concatenate([[True], document[1:] != document[:-1]])
    starts[np.cumsum(lengths)[:-1]] = True
    index = np.arange(len(document))
    return index - np.maximum.accumulate(np.where(starts, index, 0))


def _joined(parts: list[TokenSequence]) -> TokenSequence:
    return parts[0] if len(parts) == 1 else TokenSequence.join(parts, new_documents=True)
