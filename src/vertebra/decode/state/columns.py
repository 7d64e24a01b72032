"""Columns of a batch: cut out, and joined with what comes after them. It knows no model and no cache.

[page  page  page]  +  [pad  q  q]        rows of the new chunk are padded to the left, so that every row's last
[page  page  page]     [q    q  q]        column is real: that is where the next token is predicted
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vertebra.decode.state.column_facts import ColumnFacts
from vertebra.errors import GenerationError, SequenceError
from vertebra.sequence.batch import Batch, collate, uncollate
from vertebra.sequence.roles import Role
from vertebra.sequence.tokens import TokenSequence


@dataclass(frozen=True)
class ColumnPiece:
    """Columns that were given together, and what the encoders made of their features."""

    start: int
    batch: Batch
    encoded: Any

    @property
    def stop(self) -> int:
        return self.start + self.batch.length

    def select(self, rows: torch.Tensor | None) -> ColumnPiece:
        """These rows of it; encoded features are rows first, or know themselves how to be selected."""
        if rows is None:
            return self
        encoded = self.encoded if self.encoded is None else self.encoded.select(rows)
        return ColumnPiece(self.start, self.batch.select(rows), encoded)

    def before(self, length: int) -> ColumnPiece:
        """The piece without the columns from `length` on. What was encoded stays whole: it is read by column."""
        if self.stop <= length:
            return self
        return ColumnPiece(self.start, cut_columns(self.batch, 0, length - self.start), self.encoded)


def cut_columns(batch: Batch, start: int, stop: int) -> Batch:
    """Columns start:stop of every row; features stay whole, since slots name those that they need."""
    width = batch.length
    return Batch(
        {
            key: value[:, start:stop] if isinstance(value, torch.Tensor) and value.shape[1:2] == (width,) else value
            for key, value in batch.items()
        }
    )


def with_steps(batch: Batch, steps: Sequence[tuple[torch.Tensor, torch.Tensor | None]]) -> Batch:
    """The batch with one token a row, [B], for each step; where a row was not live, padding stands."""
    tokens, rows = zip(*steps, strict=True)
    whole = batch.append(torch.stack(tokens, 1))
    for column, live in enumerate(rows, batch.length):
        if live is not None:  # a row that has ended adds nothing: its columns are padding
            whole["attention_mask"][:, column] = live.long()
            whole["document"][:, column].masked_fill_(~live, -1)
            whole["position_ids"][:, column].masked_fill_(~live, 0)
    return whole


def as_batch(batch: Any, backbone: Any, device: torch.device) -> tuple[Batch, ColumnFacts]:
    """A batch whose rows end in the last column, and its layout. What was padded to the right is padded to the left."""
    batch = given_batch(batch, backbone)
    layout = ColumnFacts(batch)
    if layout.branched:
        raise GenerationError(
            "a row has branches (block < 0): what comes next would go on from none of them. Give each as a row of its own; "
            "`Prefilled` computes what they share once"
        )
    if not layout.ends_real:
        batch = _to_the_right(batch, backbone.pad_token_id)
        layout = ColumnFacts(batch)
    if batch.device != device:
        batch = batch.to(device)
        layout = layout.of(batch)
    return batch, layout


def given_batch(batch: Any, backbone: Any) -> Batch:
    """A batch of whatever was given."""
    if isinstance(batch, TokenSequence):
        batch = [batch]
    return batch if isinstance(batch, Batch) else collate(_sequences(batch), pad_id=backbone.pad_token_id, side="left")


def _to_the_right(batch: Batch, pad_id: int) -> Batch:
    """The rows moved to the right end."""
    moved = collate(uncollate(batch), pad_id=pad_id, side="left")
    # slots and features were checked when the batch was made; only the numbering of segments is that of the rows
    return Batch({**batch, **_renamed(moved, batch["segments"]).to(batch.device)})


def _sequences(given: Any) -> list[TokenSequence]:
    if not isinstance(given, Sequence) or not all(isinstance(item, TokenSequence) for item in given):
        raise SequenceError(
            f"expected a TokenSequence, a list of them, or a Batch; got {type(given).__name__}. Ids become a sequence by "
            "`TokenSequence.of(ids)`"
        )
    return list(given)


def _renamed(chunk: Batch, segments: tuple[str, ...]) -> Batch:
    """The chunk with its slots numbered by `segments`, which contains its own; without features."""
    places = [segments.index(name) for name in chunk["segments"]]
    number = torch.tensor([*places, -1], device=chunk.device)  # the last entry is where -1 points
    slot = chunk["slot"].clone()
    slot[..., 0] = number[slot[..., 0]]
    kept = {key: value for key, value in chunk.items() if key != "features"}
    return Batch({**kept, "slot": slot, "segments": segments})


def joined(batch: Batch, layout: ColumnFacts, more: Any, features: Any, *, pad_id: int) -> tuple[Batch, Batch]:
    """(the batch with `more` after every row, the new columns alone). Positions and documents go on."""
    if isinstance(more, torch.Tensor):
        whole = batch.append(more, role=Role.USER)
        return whole, cut_columns(whole, batch.length, whole.length)
    if isinstance(more, TokenSequence):
        more, features = [more], [features] if isinstance(features, Mapping) else features
    sequences = _sequences(more)
    if len(sequences) != batch.rows:
        raise SequenceError(f"{len(sequences)} sequences after {batch.rows} rows; give one for each row")
    chunk = collate([_from_zero(sequence) for sequence in sequences], features, pad_id=pad_id, side="left")
    chunk = chunk.to(batch.device)
    real = chunk["attention_mask"].bool()
    chunk["position_ids"] = torch.where(real, chunk["position_ids"] + layout.tensor(layout.next_position), 0)
    chunk["document"] = torch.where(real, batch["document"].gather(1, layout.tensor(layout.last)), -1)
    highest = batch["block"].amax(1, keepdim=True)
    chunk["block"] = torch.where(chunk["block"] > 0, chunk["block"] + highest, 0)
    segments = tuple(dict.fromkeys([*batch["segments"], *chunk["segments"]]))
    tail = _renamed(chunk, segments)
    columns = {key: torch.cat([batch[key], tail[key]], 1) for key in tail if isinstance(tail[key], torch.Tensor)}
    return Batch({**batch, **columns, "segments": segments}), chunk


def _from_zero(sequence: TokenSequence) -> TokenSequence:
    """Positions and slot indices of one that was cut out of a longer one, counted from 0 again."""
    if not len(sequence):
        return sequence
    slot = sequence.slot.copy()
    for number in range(len(sequence.segments)):
        here = slot[:, 0] == number
        if here.any():
            slot[here, 1] -= slot[here, 1].min()
    return sequence.with_vectors(position=sequence.position - sequence.position[0], slot=slot)
