"""Causal language modelling over a table: one sample a row, blocks cut from all text, or windows that overlap.

    rows      doc A </s>                        Blocks   doc A </s> doc B │ </s> doc C </s> d │ oc D </s>
              doc B </s>                                 every token in exactly one block; the tail kept or dropped
    Windows   A B C D E F │                     the second window sees D E F again as context, and counts only G H I
                    D E F G H I

All are views: nothing is copied before a sample is asked for. Targets stay aligned with ids; the shift is the loss's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from vertebra import log
from vertebra.data.read.rows import digest
from vertebra.data.samples.samples import Picked, Samples, Vectors, as_sequence, refuse_mixture
from vertebra.data.samples.table import Table, documents_of
from vertebra.errors import ConfigError, TooLongError, UnknownNameError
from vertebra.sequence.length import cut_to

Tail = Literal["keep", "drop"]
TooLong = Literal["error", "drop", "cut", "windows"]
TOO_LONG: tuple[TooLong, ...] = ("error", "drop", "cut", "windows")


class Blocks(Samples):
    """All samples of a table joined and cut into blocks of `size`; only the last may be shorter.

    isolate: number the documents in a block, so that none attends to another; by default a block is one document, as
    in most training from scratch. tail: what becomes of the last, shorter block.
    """

    def __init__(self, table: Table, size: int, *, tail: Tail = "keep", isolate: bool = False) -> None:
        if size < 2:
            raise ConfigError(f"a block size of {size}; expected 2 or more")
        if tail not in ("keep", "drop"):
            raise UnknownNameError("choice for the tail", tail, ("keep", "drop"))
        self.table, self.size, self.isolate = table, size, isolate
        whole, rest = divmod(table.tokens, size)
        if tail == "drop" and not whole:
            raise ConfigError(f"all {table.tokens} tokens are less than one block of {size}; nothing would be left")
        kept = rest if tail == "keep" else 0
        self.dropped = rest - kept
        """How many tokens the choice of tail leaves out."""
        self.lengths = np.array([size] * whole + [kept] * bool(kept), np.int64)

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        start = index * self.size
        stop = start + int(self.lengths[index])
        found: Vectors = {name: self.table.stream(name, start, stop) for name in self._columns()}
        if self.isolate or self.table.scaled:
            pieces = list(documents_of(self.table, start, stop))
            counts = [high - low for _, low, high in pieces]
            if self.isolate:
                found["document"] = np.repeat(np.arange(len(pieces)), counts)
            scales = self.table.scales(pieces[0][0], pieces[-1][0] + 1)
            if scales is not None:
                weight = np.repeat(scales, counts).astype(np.float32)
                found["weight"] = found.get("weight", 1.0) * weight
        return found

    def words(self, index: int) -> np.ndarray:
        """Whose word each token is; words of different samples never share a number."""
        start = index * self.size
        stop = start + int(self.lengths[index])
        word = self.table.stream("word", start, stop).astype(np.int64)
        starts = [low for _, low, _ in documents_of(self.table, start, stop)]
        changes = np.concatenate([[True], word[1:] != word[:-1]])
        changes[starts] = True
        return np.cumsum(changes) - 1

    def where(self, index: int) -> str:
        pieces = list(documents_of(self.table, index * self.size, index * self.size + int(self.lengths[index])))
        first, last = (self.table.where(pieces[end][0]) for end in (0, -1))
        return first if first == last else f"{first} … {last}"

    def fingerprint(self) -> str:
        return digest("blocks", self.table.fingerprint(), self.size, self.isolate, self.dropped)

    def _columns(self) -> list[str]:
        return [name for name in self.table.columns if name != "word"]


class Windows(Samples):
    """Every sample cut into windows of at most `size` positions that overlap by `stride`.

    The overlap is context: a position that an earlier window has counted has weight 0 in the next, so that nothing
    counts twice. With `again=True` it counts each time, as the tokenizer's `return_overflowing_tokens` would have it.
    """

    def __init__(self, samples: Samples, size: int, stride: int = 0, *, again: bool = False) -> None:
        if not 0 <= stride < size:
            raise ConfigError(f"windows of {size} that overlap by {stride}; expected 0 to {size - 1}")
        refuse_mixture(samples)
        self.samples, self.size, self.stride, self.again = samples, size, stride, again
        step = size - stride
        more = np.maximum(0, -(-(samples.lengths - size) // step))
        self._sample = np.repeat(np.arange(len(samples)), more + 1)
        firsts = np.concatenate([[0], np.cumsum(more + 1)])
        self._number = np.arange(len(self._sample)) - firsts[self._sample]
        self._start = self._number * step
        self.lengths = np.minimum(samples.lengths[self._sample] - self._start, size)

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        whole = self.samples.vectors(int(self._sample[index]), epoch)
        if "slot" in whole:
            raise ConfigError(f"{self.where(index)}: a sample with images or boxes cannot be cut into windows")
        start = int(self._start[index])
        found = {name: np.asarray(value)[start : start + self.size] for name, value in whole.items()}
        if self._number[index] and self.stride and not self.again:
            weight = np.array(found.get("weight", np.ones(len(found["ids"]))), np.float32)
            weight[: self.stride] = 0
            found["weight"] = weight
        return found

    def where(self, index: int) -> str:
        place = self.samples.where(int(self._sample[index]))
        return f"{place} (from token {int(self._start[index])})" if self._number[index] else place

    def extra(self, index: int, epoch: int = 0) -> Mapping[str, Any]:
        return self.samples.extra(int(self._sample[index]), epoch)

    def fingerprint(self) -> str:
        return digest("windows", self.samples.fingerprint(), self.size, self.stride, self.again)

    def sample_of(self, index: int) -> int:
        """Which sample a window was cut from (`overflow_to_sample_mapping`)."""
        return int(self._sample[index])


class _Cut(Picked):
    """Samples with their ends cut off: of plain text simply the end, of a conversation what `cut_to` may take."""

    def __init__(self, samples: Samples, size: int) -> None:
        super().__init__(samples, np.arange(len(samples)))
        self.size = size
        self.lengths = samples.lengths.copy()
        self._shorter: dict[int, Vectors] = {}
        faults = []
        for index in np.flatnonzero(samples.lengths > size).tolist():
            try:
                self._shorter[index] = _shorter(samples.vectors(index), size)
            except TooLongError as error:
                faults.append(f"  sample {index} ({samples.where(index)}): {error}")
            else:
                self.lengths[index] = len(self._shorter[index]["ids"])
        if faults:
            raise TooLongError(f"{len(faults)} samples cannot be cut to {size} positions:\n" + "\n".join(faults[:20]))

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        return self._shorter[index] if index in self._shorter else super().vectors(index, epoch)

    def fingerprint(self) -> str:
        return digest("cut", self.samples.fingerprint(), self.size)


def _shorter(vectors: Vectors, size: int) -> Vectors:
    if "role" not in vectors and "slot" not in vectors:
        return {name: value[:size] for name, value in vectors.items()}
    cut = cut_to(as_sequence(vectors), size)
    found = {name: getattr(cut, name) for name in vectors if name != "segments"}
    return found | ({"segments": cut.segments} if cut.segments else {}) | {"position": cut.position}


def fitted(samples: Samples, size: int, *, too_long: TooLong = "error") -> Samples:
    """The samples, each of at most `size` positions.

    too_long: `error` lists those that are longer; `drop` leaves them out; `windows` cuts them into several; `cut`
    takes the end off a plain text, and of a conversation only what `cut_to` may take (no answer, no slot).
    """
    if too_long not in TOO_LONG:
        raise UnknownNameError("choice for samples that are too long", too_long, TOO_LONG)
    over = np.flatnonzero(samples.lengths > size)
    if not len(over):
        return samples
    if too_long == "error":
        listed = [f"  sample {i} ({samples.where(int(i))}) has {samples.lengths[i]}" for i in over[:20]]
        listed += [f"  … and {len(over) - 20} more"] if len(over) > 20 else []
        raise TooLongError(
            f"{len(over)} of {len(samples)} samples are longer than {size} positions:\n" + "\n".join(listed) + "\n"
            f"Raise the limit, or choose: too_long={' or '.join(repr(choice) for choice in TOO_LONG[1:])}."
        )
    if too_long == "windows":
        return Windows(samples, size)
    if too_long == "drop":
        kept = np.flatnonzero(samples.lengths <= size)
        if not len(kept):
            raise TooLongError(f"all {len(samples)} samples are longer than {size} positions; nothing would be left")
        log.warn(f"left out {len(over)} of {len(samples)} samples, being longer than {size} positions")
        return Picked(samples, kept)
    cut = _Cut(samples, size)
    lost = int((samples.lengths - cut.lengths).sum())
    log.warn(f"cut {len(over)} of {len(samples)} samples to {size} positions; {lost:,} positions are lost")
    return cut
