"""Best-fit packing: several samples in one row of fixed capacity, each still a document of its own.

    capacity 16   │aaaaaaaaa│bbbbbbb│      `pack`            decides who shares a row, from lengths alone
                  │ccccccccc│ddddd│ee│     `pack_sequences`  joins the rows
                  │fffffff│ggggggg│··

The search is exact best fit: free space is kept as the bits of one integer, so that the fullest row that still has
room is found by one shift. Knows neither models nor masks and needs no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from vertebra import log
from vertebra.errors import SequenceError, TooLongError, UnknownNameError
from vertebra.sequence.length import cut_to, listed, refuse_too_long
from vertebra.sequence.tokens import TokenSequence

TooLong = Literal["error", "cut", "drop"]
TOO_LONG: tuple[TooLong, ...] = ("error", "cut", "drop")

Features = Mapping[str, Any]
"""The raw items of one sample's outside embeddings: segment name -> array [m, …]."""


def pack(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[list[int]]:
    """Rows of indices whose lengths add up to at most `capacity`: best-fit decreasing.

    The longest goes first, each into the fullest row that still has room. Equal lengths keep their order, so the
    result is determined. A length above `capacity`, or below 1, is an error.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    _check_capacity(capacity)
    if len(sizes) and int(sizes.min()) < 1:
        raise SequenceError(f"length {int(sizes.min())} at index {int(sizes.argmin())}; only lengths of 1 or more pack")
    if len(sizes) and int(sizes.max()) > capacity:
        over = [f"index {i} has length {int(sizes[i])}" for i in np.flatnonzero(sizes > capacity)]
        raise TooLongError(f"longer than the capacity of {capacity}: {listed(over)}")
    rows: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # free space -> rows that have exactly so much
    spaces = 0  # bit n is set while `with_room[n]` is not empty
    order = np.argsort(-sizes, kind="stable")
    for index, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        fitting = spaces >> size
        if fitting:
            space = size + (fitting & -fitting).bit_length() - 1
            row = with_room[space].pop()
            if not with_room[space]:
                spaces ^= 1 << space
            rows[row].append(index)
        else:
            space, row = capacity, len(rows)
            rows.append([index])
        left = space - size
        if left:
            with_room.setdefault(left, []).append(row)
            spaces |= 1 << left
    return rows


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Packed rows, and an account of where every sample went."""

    rows: list[TokenSequence]
    members: list[list[int]]
    """Which samples each row holds, in their order inside the row."""
    features: list[dict[str, Any]] | None
    """Each row's raw items, joined in the same order; None where none were given."""
    cut: dict[int, int] = field(default_factory=dict)
    """Sample -> how many of its positions were cut away."""
    dropped: list[int] = field(default_factory=list)
    """Samples that were left out, since they are longer than a row."""

    def __len__(self) -> int:
        return len(self.rows)


def pack_sequences(
    sequences: Sequence[TokenSequence],
    capacity: int,
    *,
    features: Sequence[Features] | None = None,
    too_long: TooLong = "error",
    line_ends: Collection[int] = (),
) -> Packing:
    """Join samples into rows of at most `capacity` positions; each stays a document of its own.

    A sample longer than a row is an error that counts its tokens and slots. `too_long="cut"` shortens it as `cut_to`
    does (never a supervised position, a slot or half a line); `"drop"` leaves it out. Both are logged and reported.
    """
    if features is not None and len(features) != len(sequences):
        raise SequenceError(f"{len(features)} rows of features for {len(sequences)} sequences; give one for each")
    fitted, cut, dropped = _fit(sequences, capacity, too_long, line_ends)
    if cut:
        log.warn(
            f"cut to {capacity} positions: {len(cut)} of {len(sequences)} sequences, {sum(cut.values())} positions"
        )
    if dropped:
        log.warn(f"left out, being longer than {capacity}: {len(dropped)} of {len(sequences)} sequences")
    kept = list(fitted)
    members = [sorted(kept[i] for i in row) for row in pack([len(sequence) for sequence in fitted.values()], capacity)]
    return Packing(
        rows=[TokenSequence.join([fitted[i] for i in row], new_documents=True) for row in members],
        members=members,
        features=None if features is None else [join_features([features[i] for i in row]) for row in members],
        cut=cut,
        dropped=dropped,
    )


def join_features(parts: Sequence[Features]) -> dict[str, Any]:
    """The raw items of several samples as those of one row, in the same order as their joined slots."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: np.concatenate([np.asarray(part[name]) for part in parts if name in part]) for name in names}


def _fit(
    sequences: Sequence[TokenSequence], capacity: int, too_long: str, line_ends: Collection[int]
) -> tuple[dict[int, TokenSequence], dict[int, int], list[int]]:
    """What goes into rows (by number), how much was cut off, and what was dropped."""
    _check_capacity(capacity)
    if too_long not in TOO_LONG:
        raise UnknownNameError("choice for sequences that are too long", too_long, TOO_LONG)
    fitted = dict(enumerate(sequences))
    cut: dict[int, int] = {}
    dropped: list[int] = []
    empty = [str(i) for i, sequence in fitted.items() if not len(sequence)]
    if empty:
        raise SequenceError(f"sequences without a position cannot be packed: {listed(empty)}")
    if too_long == "error":
        mend = 'Raise the capacity, shorten the samples, or name a choice: too_long="cut" or "drop".'
        refuse_too_long(fitted, capacity, what="the capacity", mend=mend)
        return fitted, cut, dropped
    for i, sequence in list(fitted.items()):
        if len(sequence) <= capacity:
            continue
        if too_long == "drop":
            dropped.append(i)
            del fitted[i]
            continue
        try:
            fitted[i] = cut_to(sequence, capacity, line_ends=line_ends)
        except TooLongError as error:
            raise TooLongError(f"sequence {i}: {error}") from None
        cut[i] = len(sequence) - len(fitted[i])
    return fitted, cut, dropped


def _check_capacity(capacity: int) -> None:
    if not isinstance(capacity, int | np.integer) or capacity < 1:
        raise SequenceError(f"a capacity of {capacity!r} positions; it must be a whole number, at least 1")
