"""`Batch`: several token sequences as one set of tensors, and the collator that pads them into it.

A batch is a dict, so that `forward(**batch)` works and a data loader or a trainer can move it; its keys can be read as
attributes. Padding is known by the mask and by `document == -1`, never by the pad id, which may well be a real token.
Knows no models.

    B rows, L positions
    input_ids attention_mask position_ids targets weights role type block document   [B, L]
    slot                                                                              [B, L, 2]
    segments                              names that `slot[..., 0]` points to
    features                              {segment: {"values": [M, …], "rows": [M]}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from vertebra.errors import SequenceError, UnknownNameError, did_you_mean
from vertebra.sequence.features import Features, gather
from vertebra.sequence.length import listed, refuse_too_long
from vertebra.sequence.roles import VALUE_TARGET
from vertebra.sequence.tokens import NO_TARGET, Role, TokenSequence

# key -> (vector of the sequence, what padding holds, type). Long is what torch indexes and embeds with; the others are
# only compared, and small: a batch is mostly memory to be touched. The pad id is filled in by `collate`.
_TABLES: dict[str, tuple[str, float, type]] = {
    "input_ids": ("ids", 0, np.int64),
    "position_ids": ("position", 0, np.int64),
    "targets": ("target", NO_TARGET, np.int64),
    "weights": ("weight", 0, np.float32),
    "role": ("role", int(Role.PAD), np.int8),
    "type": ("type", 0, np.int32),
    "block": ("block", 0, np.int32),
    "slot": ("slot", -1, np.int32),
    "document": ("document", -1, np.int32),
}
KEYS = (
    "input_ids", "attention_mask", "position_ids", "targets", "weights", "role", "type", "block", "slot", "document",
    "segments", "features",
)  # fmt: skip
SIDES: tuple[Literal["right", "left"], ...] = ("right", "left")


class Batch(dict[str, Any]):
    """A dict of tensors, with its keys as attributes. Made by `collate`; rebuilt freely by whoever moves it."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"a batch has no `{name}`.{did_you_mean(name, [*self, *KEYS])}") from None

    @property
    def rows(self) -> int:
        return int(self["input_ids"].shape[0])

    @property
    def length(self) -> int:
        """Positions in a row, padding included."""
        return int(self["input_ids"].shape[1])

    @property
    def device(self) -> torch.device:
        return self["input_ids"].device

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> Batch:
        """Every tensor on `device`; a new batch."""
        return Batch(_map(self, lambda tensor: tensor.to(device, non_blocking=non_blocking)))

    def pin_memory(self) -> Batch:
        """Every tensor in page-locked memory (a data loader calls this)."""
        return Batch(_map(self, lambda tensor: tensor.pin_memory()))

    def select(self, rows: Sequence[int] | torch.Tensor) -> Batch:
        """These rows, in this order, repeated where named twice; each keeps the items that belong to it."""
        index = torch.as_tensor(rows, device=self.device)
        index = index.nonzero()[:, 0] if index.dtype == torch.bool else index.long()
        outside = [int(row) for row in index if not -self.rows <= int(row) < self.rows]
        if outside:
            raise SequenceError(f"rows {outside} of a batch of {self.rows} rows")
        index = index % self.rows if self.rows else index
        chosen = {key: value[index] if isinstance(value, torch.Tensor) else value for key, value in self.items()}
        chosen["features"] = {name: _items_of(block, index) for name, block in self.get("features", {}).items()}
        return Batch(chosen)

    def append(self, ids: torch.Tensor, *, role: Role = Role.ASSISTANT) -> Batch:
        """The batch with `ids` [B, n] after every row, as decoding adds them: causal, unsupervised, without slots.

        Positions and documents go on from each row's last real position, wherever its padding is.
        """
        if ids.ndim != 2 or ids.shape[0] != self.rows:
            raise SequenceError(f"ids of shape {tuple(ids.shape)} after {self.rows} rows; expected [{self.rows}, n]")
        ids = ids.to(self.device, torch.long)
        real = self["attention_mask"].bool()
        step = torch.arange(1, ids.shape[1] + 1, device=self.device)
        # the last real column, by its index: padding may stand on either side
        last = (real * torch.arange(1, self.length + 1, device=self.device)).argmax(1, keepdim=True)
        fill = {"targets": NO_TARGET, "weights": 0, "role": int(role), "type": 0, "block": 0, "slot": -1}
        new: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "position_ids": self["position_ids"].gather(1, last) + step,
            "document": self["document"].gather(1, last).expand(-1, ids.shape[1]),
        }
        for key, value in fill.items():
            shape = (*ids.shape, 2) if key == "slot" else ids.shape
            new[key] = torch.full(shape, value, dtype=self[key].dtype, device=self.device)
        joined = {key: torch.cat([self[key], value], 1) for key, value in new.items()}
        return Batch({**self, **joined})


def collate(
    sequences: Sequence[TokenSequence],
    features: Sequence[Features | None] | None = None,
    *,
    pad_id: int,
    side: Literal["right", "left"] = "right",
    multiple_of: int = 1,
    max_length: int | None = None,
) -> Batch:
    """Pad sequences into one batch, as long as the longest of them (rounded up to `multiple_of`).

    `features` are the raw items of each row's slots: one mapping {segment: array [m, …]} (or None) a row. A row
    longer than `max_length` is an error that counts its tokens and slots; rounding up stops at `max_length`.
    """
    other = [type(sequence).__name__ for sequence in sequences if not isinstance(sequence, TokenSequence)]
    if other or isinstance(features, Mapping):
        what = f"rows are {', '.join(other[:4])}" if other else "features are one mapping for all rows"
        raise SequenceError(f"{what}; expected `TokenSequence`s, and one mapping of features (or None) for each")
    lengths = [len(sequence.ids) for sequence in sequences]
    _check(lengths, pad_id=pad_id, side=side, multiple_of=multiple_of)
    longest = max(lengths)
    width = -(-longest // multiple_of) * multiple_of
    if max_length is not None:
        if longest > max_length:
            mend = "Pack or cut the samples (`pack_sequences(…, too_long=…)`), or raise `max_length`."
            refuse_too_long(dict(enumerate(sequences)), max_length, what="the longest row", mend=mend)
        width = min(width, max_length)
    spans = [slice(0, n) if side == "right" else slice(width - n, width) for n in lengths]
    segments, slots = _shared_segments(sequences)
    shape = (len(sequences), width)
    tables: dict[str, np.ndarray] = {}
    for key, (vector, pad, dtype) in _TABLES.items():
        table = tables[key] = np.zeros((*shape, 2) if key == "slot" else shape, dtype)
        if fill := pad_id if key == "input_ids" else pad:  # zeros are not touched twice
            table.fill(fill)
        # Slices of rows copy faster than any index.
        rows = slots if key == "slot" else [getattr(sequence, vector) for sequence in sequences]
        for row, values, span in zip(table, rows, spans, strict=False):  # no slots where nobody has segments
            row[span] = values
    mask = tables["attention_mask"] = np.zeros(shape, np.int64)
    for row, span in zip(mask, spans, strict=True):
        row[span] = 1
    _check_supervision(tables["weights"], tables["targets"])
    gathered = {} if features is None else gather(sequences, features)
    tensors = {key: torch.from_numpy(tables[key]) for key in KEYS if key in tables}
    return Batch(tensors, segments=segments, features=gathered)


def uncollate(batch: Batch) -> list[TokenSequence]:
    """The rows as sequences again, for inspection: `collate` undone. Padding goes; unused segment names go."""
    arrays = {key: batch[key].cpu().numpy() for key in (*_TABLES, "attention_mask")}
    sequences = []
    for row in range(batch.rows):
        real = arrays["attention_mask"][row].astype(bool)
        vectors = {
            vector: arrays[key][row][real].astype(np.float32 if key == "weights" else np.int64)
            for key, (vector, _, _) in _TABLES.items()
        }
        used = list(dict.fromkeys(index for index in vectors["slot"][:, 0].tolist() if index >= 0))
        own = np.full(len(batch.segments) + 1, -1)  # the last entry is where -1 points
        own[used] = np.arange(len(used))
        vectors["slot"] = np.stack([own[vectors["slot"][:, 0]], vectors["slot"][:, 1]], axis=1)
        sequences.append(TokenSequence(segments=tuple(batch.segments[index] for index in used), **vectors))
    return sequences


def _check(lengths: Sequence[int], *, pad_id: Any, side: str, multiple_of: int) -> None:
    if not lengths:
        raise SequenceError("no sequences to collate; a batch has at least one row")
    if not min(lengths):
        empty = [str(row) for row, length in enumerate(lengths) if not length]
        raise SequenceError(f"rows without a single position: {listed(empty)}")
    if side not in SIDES:
        raise UnknownNameError("padding side", side, SIDES)
    if not isinstance(pad_id, int | np.integer) or isinstance(pad_id, bool) or pad_id < 0:
        raise SequenceError(f"pad_id is {pad_id!r}; expected the id of a real row of the embedding matrix, 0 or more")
    if multiple_of < 1:
        raise SequenceError(f"multiple_of is {multiple_of}; expected 1 or more")


def _check_supervision(weights: np.ndarray, targets: np.ndarray) -> None:
    """A weight that is negative or not a number spoils a loss long after; a weighed position needs a target."""
    aimless = (weights > 0) & (targets < 0)
    if (
        weights.min() >= 0
        and weights.max() < np.inf
        and not (aimless.any() and (targets[aimless] != VALUE_TARGET).any())
    ):
        return
    wrong = ~(weights >= 0) | ~np.isfinite(weights) | (aimless & (targets != VALUE_TARGET))
    faults = [
        f"row {row}, column {column}: weight {weights[row, column]} on target {targets[row, column]}"
        for row, column in np.argwhere(wrong)
    ]
    raise SequenceError(
        f"weights must be 0 or more and finite, and a position that counts needs a target: {listed(faults)}"
    )


def _shared_segments(sequences: Sequence[TokenSequence]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """One numbering of the segment names for the whole batch, and every row's slots in it."""
    segments = tuple(dict.fromkeys(name for sequence in sequences for name in sequence.segments))
    tables: list[np.ndarray] = []
    if not segments:
        return segments, tables
    for sequence in sequences:
        slot = sequence.slot
        if sequence.segments != segments[: len(sequence.segments)]:
            renamed = np.array([*[segments.index(name) for name in sequence.segments], -1])
            slot = np.stack([renamed[slot[:, 0]], slot[:, 1]], axis=1)
        tables.append(slot)
    return segments, tables


def _items_of(block: Mapping[str, torch.Tensor], index: torch.Tensor) -> dict[str, torch.Tensor]:
    """The items that belong to these rows, renumbered; a row named twice has its items twice."""
    new_row, item = (block["rows"][None, :] == index[:, None]).nonzero(as_tuple=True)
    return {"values": block["values"][item], "rows": new_row}


def _map(value: Any, move: Any) -> Any:
    """`move` on every tensor of a nest of dicts; anything else stays."""
    if isinstance(value, torch.Tensor):
        return move(value)
    if isinstance(value, Mapping):
        return {key: _map(inner, move) for key, inner in value.items()}
    return value
