"""Best-fit packing: several samples in one row of fixed capacity, each still a document of its own.

    capacity 16   │aaaaaaaaa│bbbbbbb│      `pack`            decides who shares a row, from lengths alone
                  │ccccccccc│ddddd│ee│     `pack_sequences`  joins the rows
                  │fffffff│ggggggg│··      `StreamPacker`    does so for a stream, and can be stopped and resumed

The search is exact best fit: free space is kept as the bits of one integer, so that the fullest row that still has
room is found by one shift. Knows neither models nor masks and needs no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from vertebra import log
from vertebra.errors import SequenceError, TooLongError, UnknownNameError
from vertebra.sequence.length import cut_to, listed, refuse_too_long
from vertebra.sequence.tokens import VECTORS, TokenSequence

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
    sequences: Sequence[TokenSequence], capacity: int, too_long: str, line_ends: Collection[int], *, first: int = 0
) -> tuple[dict[int, TokenSequence], dict[int, int], list[int]]:
    """What goes into rows (by number, counted from `first`), how much was cut off, and what was dropped."""
    _check_capacity(capacity)
    if too_long not in TOO_LONG:
        raise UnknownNameError("choice for sequences that are too long", too_long, TOO_LONG)
    fitted = dict(enumerate(sequences, first))
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


class PackedRow(NamedTuple):
    """One row that left a `StreamPacker`."""

    sequence: TokenSequence
    members: list[int]
    """The samples in it, numbered as they came in: what belongs to them (their raw items) is found by these."""


class StreamPacker:
    """Best-fit packing of a stream, in bounded memory; its state can be saved and restored exactly.

        packer = StreamPacker(capacity=1024)
        for row in packer.rows(stream): ...      # each row is one `TokenSequence` of several documents

    Samples wait in a buffer. When it is full the waiting samples are packed, the fullest half of the rows leaves, and
    so does the row with the sample that waited longest: nothing waits for ever. What leaves depends on what came in
    alone, so a packer restored from `state_dict` goes on as if it had never stopped.
    """

    def __init__(
        self,
        capacity: int,
        *,
        buffer: int = 256,
        too_long: TooLong = "error",
        line_ends: Collection[int] = (),
    ) -> None:
        _check_capacity(capacity)
        if buffer < 1:
            raise SequenceError(f"a buffer of {buffer} samples; it must hold at least 1")
        if too_long not in TOO_LONG:
            raise UnknownNameError("choice for sequences that are too long", too_long, TOO_LONG)
        self.capacity, self.buffer = capacity, buffer
        self.too_long: TooLong = too_long
        self.line_ends = tuple(line_ends)
        self.taken = self.dropped = self.cut = 0
        self._waiting: list[TokenSequence] = []
        self._numbers: list[int] = []

    def push(self, sequence: TokenSequence) -> list[PackedRow]:
        """Take one sample in; return the rows that leave (mostly none)."""
        fitted, cut, dropped = _fit([sequence], self.capacity, self.too_long, self.line_ends, first=self.taken)
        if cut or dropped:
            done = "cut" if cut else "left out"
            log.warn_once(f"sequences longer than {self.capacity} are {done}; the packer counts how many")
        self.cut += len(cut)
        self.dropped += len(dropped)
        self._waiting += fitted.values()
        self._numbers += fitted
        self.taken += 1
        if len(self._waiting) < self.buffer:
            return []
        rows = self._packed()
        # Ties fall to the earlier row, so the order is determined by the samples alone.
        fullest = sorted(range(len(rows)), key=lambda r: -self._filled(rows[r]))
        leaving = set(fullest[: max(1, len(rows) // 2)]) | {r for r, row in enumerate(rows) if 0 in row}
        return self._release([rows[r] for r in sorted(leaving)])

    def flush(self) -> list[PackedRow]:
        """The rows of everything that still waits: the end of the stream."""
        return self._release(self._packed())

    def rows(self, stream: Iterable[TokenSequence]) -> Iterator[PackedRow]:
        """Every sample of `stream`, packed."""
        for sequence in stream:
            yield from self.push(sequence)
        yield from self.flush()

    def state_dict(self) -> dict[str, Any]:
        """What waits, as plain lists and numbers: it goes through JSON and `torch.load(weights_only=True)`."""
        return {
            "capacity": self.capacity,
            "buffer": self.buffer,
            "taken": self.taken,
            "dropped": self.dropped,
            "cut": self.cut,
            "numbers": list(self._numbers),
            "waiting": [
                {"segments": list(sequence.segments)} | {name: getattr(sequence, name).tolist() for name in VECTORS}
                for sequence in self._waiting
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        missing = set(self.state_dict()) - set(state)
        if missing:
            raise SequenceError(f"the state of a packer lacks {sorted(missing)}; save it with `state_dict()`")
        for name in ("capacity", "buffer"):
            if state[name] != getattr(self, name):
                raise SequenceError(
                    f"the state was saved with {name} {state[name]}, this packer has {getattr(self, name)}: the rows "
                    "would differ. Make the packer with the saved value."
                )
        self.taken, self.dropped, self.cut = state["taken"], state["dropped"], state["cut"]
        self._numbers = list(state["numbers"])
        self._waiting = [TokenSequence.of(**dict(sequence)) for sequence in state["waiting"]]

    def _packed(self) -> list[list[int]]:
        return [sorted(row) for row in pack([len(sequence) for sequence in self._waiting], self.capacity)]

    def _filled(self, row: list[int]) -> int:
        return sum(len(self._waiting[i]) for i in row)

    def _release(self, rows: list[list[int]]) -> list[PackedRow]:
        leaving = {i for row in rows for i in row}
        released = [
            PackedRow(
                TokenSequence.join([self._waiting[i] for i in row], new_documents=True),
                [self._numbers[i] for i in row],
            )
            for row in rows
        ]
        staying = [i for i in range(len(self._waiting)) if i not in leaving]
        self._waiting = [self._waiting[i] for i in staying]
        self._numbers = [self._numbers[i] for i in staying]
        return released


def _check_capacity(capacity: int) -> None:
    if not isinstance(capacity, int | np.integer) or capacity < 1:
        raise SequenceError(f"a capacity of {capacity!r} positions; it must be a whole number, at least 1")
