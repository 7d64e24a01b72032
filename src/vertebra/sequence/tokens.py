"""`TokenSequence`: one sample as parallel vectors, one entry a position, made together in one pass.

    position     0      1      2      3       4     5      6
    ids         <s>   <slot> <slot>   In     :     left   </s>
    role        text   image  image   user   user  asst   asst
    target      <s>    none   none    In     :     left   </s>     what this position must predict: itself, unless …
    weight       0      0      0      0      0      1      1       … and how much its loss counts
    block        0      0      0      0      0      0      0       0: causal; k > 0: both ways among all k; -k: a branch
    slot         -    (0,0)  (0,1)    -      -      -      -       (segment, index inside the segment)

Targets are *aligned* with ids; the shift by one happens in the loss, once. The vectors are numpy arrays, so that
data workers need no torch. This module does not know tokenizers, models, or where tokens come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from vertebra.errors import SequenceError, did_you_mean
from vertebra.sequence.roles import NO_TARGET, Role

# name -> (dtype, value where nothing was given)
_FILL: dict[str, tuple[type, Any]] = {
    "weight": (np.float32, 0.0),
    "role": (np.int64, int(Role.TEXT)),
    "type": (np.int64, 0),
    "block": (np.int64, 0),
    "document": (np.int64, 0),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenSequence:
    """Parallel vectors of one sample, or of several packed ones. Build it with `TokenSequence.of`."""

    ids: np.ndarray
    """Token id. A position that an outside embedding fills holds the id of a real, reserved token."""
    target: np.ndarray
    """What this position must predict: the id itself, unless masked (masked LM) or a slot (`NO_TARGET`, or `VALUE_TARGET`
    where a head learns its item)."""
    weight: np.ndarray
    """How much its loss counts; 0: not supervised."""
    role: np.ndarray
    """A `Role`: whose text it is."""
    type: np.ndarray
    """Token type, for models that have them."""
    block: np.ndarray
    """Attention: 0 is causal; positions with the same k > 0 also see each other both ways, inside a document; those of a
    branch -k are seen by nobody outside of it."""
    slot: np.ndarray
    """[N, 2]: (index into `segments`, index inside that segment), or (-1, -1) where the token's own embedding stays."""
    document: np.ndarray
    """Which sample of a packed row."""
    position: np.ndarray
    """Rotary or absolute position, restarted per document."""
    segments: tuple[str, ...] = ()
    """Names of the outside embeddings that slots point to: `image`, `image:wrist`, `boxes`, `proprio`, `action`."""

    def __post_init__(self) -> None:
        length = len(self.ids)
        for name in VECTORS:
            value = getattr(self, name)
            shape = (length, 2) if name == "slot" else (length,)
            if value.shape != shape:
                raise SequenceError(f"`{name}` has shape {value.shape}; with {length} ids it must be {shape}")
        if not length:
            return
        if int(self.slot[:, 0].max()) >= len(self.segments):
            raise SequenceError(f"a slot names segment {int(self.slot[:, 0].max())}; segments are {self.segments}")
        if int(self.slot.min()) < -1 or not np.array_equal(self.slot[:, 0] < 0, self.slot[:, 1] < 0):
            raise SequenceError("a slot is (segment, index), both 0 or more, or (-1, -1) where none is")
        for name in ("ids", "document"):
            if int(getattr(self, name).min()) < 0:
                raise SequenceError(
                    f"`{name}` holds {int(getattr(self, name).min())}; expected numbers from 0 on. A position that an "
                    "outside embedding fills holds a real, reserved id, and padding is the collator's"
                )

    @classmethod
    def of(
        cls,
        ids: Iterable[int],
        *,
        target: Iterable[int] | None = None,
        slot: Any = None,
        position: Iterable[int] | None = None,
        segments: Sequence[str] = (),
        **vectors: Any,
    ) -> TokenSequence:
        """Fill in what is not given. A scalar (`role=Role.USER`, `weight=1.0`) holds for every position."""
        ids = _whole_numbers("ids", ids)
        length = len(ids)
        _check_names(vectors, _FILL)
        if isinstance(segments, str) or len(set(segments)) < len(segments):
            raise SequenceError(f"segments are {segments!r}; expected names, each once, as in ('image', 'proprio')")
        slots = np.full((length, 2), -1, np.int64) if slot is None else _whole_numbers("slot", slot)
        if slots.size != 2 * length:
            raise SequenceError(f"`slot` has shape {slots.shape}; with {length} ids it must be {(length, 2)}")
        slots = slots.reshape(length, 2)
        filled: dict[str, np.ndarray] = {}
        for name, (dtype, default) in _FILL.items():
            if name not in vectors:
                filled[name] = np.full(length, default, dtype) if default else np.zeros(length, dtype)
                continue
            value = _vector(name, vectors[name], dtype)
            filled[name] = np.full(length, value, dtype) if value.ndim == 0 else value
        if target is None:
            targets = np.where(slots[:, 0] >= 0, NO_TARGET, ids)
        else:
            targets = _whole_numbers("target", target)
        if position is None:
            positions = _positions(filled["document"]) if "document" in vectors else np.arange(length)
        else:
            positions = _whole_numbers("position", position)
        return cls(ids=ids, target=targets, slot=slots, position=positions, segments=tuple(segments), **filled)

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenSequence) or self.segments != other.segments:
            return NotImplemented if not isinstance(other, TokenSequence) else False
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in VECTORS)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        slots = {name: int((self.slot[:, 0] == i).sum()) for i, name in enumerate(self.segments)}
        return f"TokenSequence({len(self)} positions, {self.supervised} supervised, slots {slots})"

    @property
    def supervised(self) -> int:
        """How many positions are trained on."""
        return int((self.weight > 0).sum())

    @property
    def documents(self) -> int:
        return len(np.unique(self.document))

    def slot_count(self, segment: str) -> int:
        """How many outside embeddings of this name the sequence has room for."""
        if segment not in self.segments:
            return 0
        return int((self.slot[:, 0] == self.segments.index(segment)).sum())

    def with_vectors(self, **vectors: Any) -> TokenSequence:
        """A copy with some vectors replaced; the original is not modified."""
        _check_names(vectors, VECTORS)
        new: dict[str, Any] = {name: _vector(name, value, getattr(self, name).dtype) for name, value in vectors.items()}
        return replace(self, **new)

    def cut(self, start: int = 0, stop: int | None = None) -> TokenSequence:
        """Positions `start:stop` as a sequence of its own. Positions and slot indices stay what they were."""
        return _checked_already(self.segments, {name: getattr(self, name)[start:stop] for name in VECTORS})

    def show(
        self, tokenizer: Any = None, *, html: bool = False, mask: Any = None, fold: bool = True, console: Any = None
    ) -> str | None:
        """Print it as a coloured table, or return a page of HTML; `mask` is a [length, length] boolean table to draw."""
        from vertebra.sequence.show import show

        return show(self, tokenizer, html=html, mask=mask, fold=fold, console=console)

    @staticmethod
    def join(parts: Sequence[TokenSequence], *, new_documents: bool = False) -> TokenSequence:
        """One sequence after the other.

        Inside one document positions go on and slots of one segment name are counted on; with `new_documents` each
        part is a document (or several) of its own: positions restart, and attention never crosses.
        """
        segments = tuple(dict.fromkeys(name for part in parts for name in part.segments))
        parts = [part for part in parts if len(part)]
        if not parts:
            return replace(TokenSequence.of([]), segments=segments)
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in VECTORS}
        lengths = [len(part) for part in parts]
        starts = np.cumsum([0, *lengths[:-1]])

        def counted_on(values: np.ndarray, most: np.ndarray) -> np.ndarray:
            """Each part's numbers behind those of the parts before it, each of which counts up to its `most`."""
            return values + np.repeat(np.cumsum(most) - most, lengths)

        columns["slot"] = _renumbered(columns["slot"], parts, segments)
        block = columns["block"]
        if block.any():
            both = np.maximum.reduceat(np.maximum(block, 0), starts)
            branches = np.maximum.reduceat(np.maximum(-block, 0), starts)
            together, apart = counted_on(block, both), -counted_on(-block, branches)
            columns["block"] = np.where(block > 0, together, np.where(block < 0, apart, 0))
        name = "document" if new_documents else "position"
        columns[name] = counted_on(columns[name], np.maximum.reduceat(columns[name], starts) + 1)
        return _checked_already(segments, columns)


VECTORS = tuple(field.name for field in fields(TokenSequence) if field.name != "segments")
"""The names of the vectors, in the order in which the class declares them."""


def _checked_already(segments: tuple[str, ...], columns: dict[str, np.ndarray]) -> TokenSequence:
    """A sequence whose vectors come from sequences: what holds for these holds for it."""
    made = object.__new__(TokenSequence)
    made.__dict__.update(columns, segments=segments)
    return made


def _check_names(given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise SequenceError(
            f"a token sequence has no {unknown}; its vectors are {list(VECTORS)}.{did_you_mean(unknown[0], VECTORS)}"
        )


def _vector(name: str, value: Any, dtype: Any) -> np.ndarray:
    if np.issubdtype(dtype, np.integer):
        return _whole_numbers(name, value)
    try:
        return np.asarray(value, dtype)
    except (TypeError, ValueError) as error:
        raise SequenceError(f"`{name}` is {value!r:.80}; expected one number a position") from error


def _whole_numbers(name: str, value: Any) -> np.ndarray:
    """As int64; what is no whole number is an error, since numpy would cut 1.5 down to 1 in silence."""
    if not isinstance(value, np.ndarray) and isinstance(value, Iterable):
        value = list(value)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise SequenceError(f"`{name}` is {value!r:.80}; expected whole numbers in rows of one length") from error
    if array.dtype.kind not in "iu" and array.size:
        raise SequenceError(f"`{name}` holds {array.dtype} ({value!r:.60}); expected whole numbers")
    return array.astype(np.int64, copy=False)


def _positions(document: np.ndarray) -> np.ndarray:
    """0, 1, 2 … restarted wherever the document changes."""
    index = np.arange(len(document))
    starts = np.concatenate([[True], document[1:] != document[:-1]]) if len(document) else np.zeros(0, bool)
    return index - np.maximum.accumulate(np.where(starts, index, 0))


def _renumbered(slot: np.ndarray, parts: Sequence[TokenSequence], segments: tuple[str, ...]) -> np.ndarray:
    """The slots of all parts in the joined numbering: those of one segment are counted on from part to part."""
    at = np.flatnonzero(slot[:, 0] >= 0)
    if not len(at):
        return slot
    slot = slot.copy()
    part = np.repeat(np.arange(len(parts)), [len(one) for one in parts])[at]
    numbers = np.zeros((len(parts), len(segments)), np.int64)
    """Of each part: the number in the joined sequence of each of its own segments."""
    for row, one in zip(numbers, parts, strict=True):
        row[: len(one.segments)] = [segments.index(name) for name in one.segments]
    new = numbers[part, slot[at, 0]]
    counts = np.zeros((len(parts), len(segments)), np.int64)
    np.add.at(counts, (part, new), 1)
    before = np.cumsum(counts, 0) - counts
    slot[at, 0] = new
    slot[at, 1] += before[part, new]
    return slot
