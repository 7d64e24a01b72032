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
from vertebra.sequence.tokens import NO_TARGET, Role, TokenSequence

# batch key -> (vector of the sequence, what padding holds); the pad id is filled in by `collate`
_INTEGERS: dict[str, tuple[str, int]] = {
    "input_ids": ("ids", 0),
    "position_ids": ("position", 0),
    "targets": ("target", NO_TARGET),
    "role": ("role", int(Role.PAD)),
    "type": ("type", 0),
    "block": ("block", 0),
    "document": ("document", -1),
}
_VECTOR = {key: vector for key, (vector, _) in _INTEGERS.items()} | {"weights": "weight", "slot": "slot"}
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
        wanted = torch.as_tensor(rows, device=self.device)
        wanted = wanted.nonzero()[:, 0] if wanted.dtype == torch.bool else wanted.long()
        outside = [int(row) for row in wanted if not -self.rows <= int(row) < self.rows]
        if outside:
            raise SequenceError(f"rows {outside} of a batch of {self.rows} rows")
        wanted = wanted % self.rows if self.rows else wanted
        chosen = {key: value[wanted] if isinstance(value, torch.Tensor) else value for key, value in self.items()}
        chosen["features"] = {name: _items_of(block, wanted) for name, block in self.get("features", {}).items()}
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
    # One array for all the integer vectors: allocating is what takes time. Slices of rows copy faster than any index.
    whole = np.empty((len(_INTEGERS) + 1, len(sequences), width), np.int64)
    for table, (vector, pad) in zip(whole, _INTEGERS.values(), strict=False):
        table.fill(pad_id if vector == "ids" else pad)
        for row, sequence, span in zip(table, sequences, spans, strict=True):
            row[span] = getattr(sequence, vector)
    column, count = np.arange(width), np.array(lengths)[:, None]
    whole[-1] = column < count if side == "right" else column >= width - count
    weights = np.zeros((len(sequences), width), np.float32)
    slot = np.full((len(sequences), width, 2), -1, np.int64)
    for row, sequence, span in zip(weights, sequences, spans, strict=True):
        row[span] = sequence.weight
    for row, table, span in zip(slot, slots, spans, strict=False):  # no tables where nobody has slots
        row[span] = table
    batch = dict(zip((*_INTEGERS, "attention_mask"), torch.from_numpy(whole).unbind(0), strict=True))
    batch |= {"weights": torch.from_numpy(weights), "slot": torch.from_numpy(slot)}
    _check_supervision(weights, batch["targets"].numpy())
    gathered = {} if features is None else gather(sequences, features)
    return Batch({key: batch[key] for key in KEYS[:-2]}, segments=segments, features=gathered)


def uncollate(batch: Batch) -> list[TokenSequence]:
    """The rows as sequences again, for inspection: `collate` undone. Padding goes; unused segment names go."""
    arrays = {key: batch[key].cpu().numpy() for key in (*_VECTOR, "attention_mask")}
    sequences = []
    for row in range(batch.rows):
        real = arrays["attention_mask"][row].astype(bool)
        vectors = {vector: arrays[key][row][real] for key, vector in _VECTOR.items()}
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
    if weights.min() >= 0 and weights.max() < np.inf and not ((weights > 0) & (targets < 0)).any():
        return
    wrong = ~(weights >= 0) | ~np.isfinite(weights) | ((weights > 0) & (targets < 0))
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


def _items_of(block: Mapping[str, torch.Tensor], wanted: torch.Tensor) -> dict[str, torch.Tensor]:
    """The items that belong to the wanted rows, renumbered; a row wanted twice has its items twice."""
    new_row, item = (block["rows"][None, :] == wanted[:, None]).nonzero(as_tuple=True)
    return {"values": block["values"][item], "rows": new_row}


def _map(value: Any, move: Any) -> Any:
    """`move` on every tensor of a nest of dicts; anything else stays."""
    if isinstance(value, torch.Tensor):
        return move(value)
    if isinstance(value, Mapping):
        return {key: _map(inner, move) for key, inner in value.items()}
    return value
