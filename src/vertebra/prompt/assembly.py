"""From a written prompt and its encoding to the vectors: roles and weights by character, splices by token.

It knows neither formats nor tokenizers: pieces come in, and the ids of their joined text with the characters behind
each id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vertebra.prompt.content import Splice
from vertebra.prompt.pieces import PromptPiece
from vertebra.prompt.tokenizer import Encoding
from vertebra.sequence.roles import Role
from vertebra.sequence.tokens import TokenSequence


@dataclass(frozen=True, slots=True)
class Written:
    """A conversation written out, before it is encoded."""

    text: str
    pieces: list[PromptPiece]
    cut: bool
    """The sequence ends with its last splice: the ids of an answer that goes on."""


@dataclass(slots=True)
class _Entry:
    """A splice and the index of the token before which it enters."""

    at: int
    splice: Splice
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """A sequence, and which lines of pages its positions come from."""

    sequence: TokenSequence
    origin: np.ndarray | None = None
    """[N, 2]: line and word of each position, −1 where it has none; None: no page asked (`first`)."""


def assemble(
    prompt: Written,
    encoding: Encoding,
    prefix: tuple[int, ...],
    front: int,
    reserved: int,
    both_ways: frozenset[str],
) -> Traced:
    lengths = [len(piece.text) for piece in prompt.pieces]
    role, weight = _by_character(prompt.pieces, lengths, encoding)
    origin = _by_line(prompt.pieces, lengths, encoding, len(prefix))
    ids = encoding.ids
    if prefix:
        ids = np.concatenate([np.asarray(prefix, np.int64), ids])
        role = np.concatenate([np.full(len(prefix), Role.TEXT, np.int64), role])
        weight = np.concatenate([np.zeros(len(prefix), np.float32), weight])
    entries = _entries(prompt, encoding, len(prefix), front)
    if not entries:
        return Traced(TokenSequence.of(ids, role=role, weight=weight), origin)
    sequence = _with_entries(ids, role, weight, entries, reserved, both_ways)
    if origin is not None:
        origin = _with_boxes(origin, entries)
    if prompt.cut:
        stop = len(sequence) - (len(ids) - entries[-1].at)
        sequence, origin = sequence.cut(0, stop), None if origin is None else origin[:stop]
    return Traced(sequence, origin)


def _by_character(
    pieces: Sequence[PromptPiece], lengths: Sequence[int], encoding: Encoding
) -> tuple[np.ndarray, np.ndarray]:
    """Each token's role and weight, from the characters behind it.

    A token that straddles a border is its last character's (`▁Hi` is the answer's, though the space is the format's),
    and is trained on if any of its characters is.
    """
    roles = np.repeat([piece.role for piece in pieces], lengths)
    weights = np.repeat(np.asarray([piece.weight for piece in pieces], np.float32), lengths)
    at, page = 0, int(Role.PAGE)
    for piece, length in zip(pieces, lengths, strict=True):
        for one in piece.pages:
            if one.word < 0:  # words lie in their lines
                roles[at + one.start : at + one.stop] = page
        at += length
    if not len(encoding.ids):
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    last = np.maximum(encoding.stop, encoding.start + 1) - 1
    trained = np.maximum.accumulate(np.where(weights > 0, np.arange(len(weights)), -1))[last]
    return roles[last], np.where(trained >= encoding.start, weights[trained], np.float32(0.0))


def _by_line(
    pieces: Sequence[PromptPiece], lengths: Sequence[int], encoding: Encoding, front: int
) -> np.ndarray | None:
    """[N, 2]: each token's line and word: those of its last character, or of the first where that is but white space."""
    lines: np.ndarray | None = None
    at = 0
    for piece, length in zip(pieces, lengths, strict=True):
        for one in piece.pages:
            if one.line < 0:
                continue
            if lines is None:
                lines = np.full((sum(lengths), 2), -1, np.int64)
            if one.word < 0:
                lines[at + one.start : at + one.stop, 0] = one.line
            else:  # a word lies in its line, which comes before it
                lines[at + one.start : at + one.stop, 1] = one.word
        at += length
    if lines is None:
        return None
    origin = np.full((front + len(encoding.ids), 2), -1, np.int64)
    last = np.maximum(encoding.stop, encoding.start + 1) - 1
    origin[front:] = lines[last]
    # `9.50\n` in one token is the word's, and so is `▁9.50` behind a blank
    bare = (origin[front:, 1] < 0) & (lines[encoding.start, 1] >= 0)
    origin[front:][bare] = lines[encoding.start][bare]
    return origin


def _with_boxes(origin: np.ndarray, entries: Sequence[_Entry]) -> np.ndarray:
    """The origins with those of what enters between the tokens: of a box, its line."""
    counts, places = _inserted(entries)
    made = np.full((len(origin) + len(places), 2), -1, np.int64)
    kept = np.ones(len(made), bool)
    kept[places] = False
    made[kept] = origin
    made[places, 0] = np.repeat([entry.splice.line for entry in entries], counts)
    return made


def _inserted(entries: Sequence[_Entry]) -> tuple[np.ndarray, np.ndarray]:
    """(how many positions each splice takes, where all of them stand in the sequence)"""
    each = np.asarray([len(e.splice.ids) if e.splice.segment is None else e.splice.count for e in entries])
    return each, np.repeat([entry.at for entry in entries], each) + np.arange(int(each.sum()))


def _entries(prompt: Written, encoding: Encoding, shift: int, front: int) -> list[_Entry]:
    """Every splice with its place among the tokens: anchored ones right after BOS, then the others in order."""
    anchored: list[_Entry] = []
    inline: list[_Entry] = []
    at = 0
    for piece in prompt.pieces:
        for offset, splice in piece.splices:
            if splice.anchored:
                anchored.append(_Entry(front, splice, piece.weight))
            else:
                place = _place(prompt.text, encoding, at + offset)
                inline.append(_Entry(max(place + shift, front), splice, piece.weight))
        at += len(piece.text)
    return anchored + inline


def _place(text: str, encoding: Encoding, at: int) -> int:
    """How many tokens stand before what enters at a character.

    A token with characters on both sides stands where its first visible one is: `▁cup` behind, `:\\n` before.
    """
    place = int(np.searchsorted(encoding.stop, at, side="right"))
    if place < len(encoding.ids):
        start = int(encoding.start[place])
        if start < at and text[start:at].strip():
            place += 1
    return place


def _with_entries(
    ids: np.ndarray,
    role: np.ndarray,
    weight: np.ndarray,
    entries: Sequence[_Entry],
    reserved: int,
    both_ways: frozenset[str],
) -> TokenSequence:
    """The vectors with every splice's ids or slots inserted."""
    segments: dict[str, int] = {}
    seen: dict[str, int] = {}
    both: dict[tuple[str, Role], bool] = {}
    rows: list[tuple[int, int, int, int]] = []  # role, block, segment, index of the first slot
    weights: list[float] = []
    block = 1  # a prefix that sees itself both ways is block 1; parts are counted from 2
    for entry in entries:
        splice = entry.splice
        name = splice.segment
        if name is None:
            rows.append((splice.role, 0, -1, -1))
            weights.append(entry.weight)
            continue
        number, first = segments.setdefault(name, len(segments)), seen.get(name, 0)
        seen[name] = first + splice.count
        if (name, splice.role) not in both:
            both[name, splice.role] = bool(both_ways & {name, name.split(":")[0], splice.role.name.lower()})
        together = both[name, splice.role]
        block += together
        rows.append((splice.role, block if together else 0, number, first))
        weights.append(0.0)
    each, places = _inserted(entries)
    table = np.repeat(np.asarray(rows, np.int64), each, axis=0)
    within = np.arange(len(table)) - np.repeat(np.cumsum(each) - each, each)
    is_slot = table[:, 2] >= 0
    new_ids = np.full(len(table), reserved, np.int64)
    new_ids[~is_slot] = [number for entry in entries for number in entry.splice.ids]
    kept = np.ones(len(ids) + len(table), bool)
    kept[places] = False

    def filled(old: np.ndarray | int, new: np.ndarray) -> np.ndarray:
        vector = np.empty((len(kept), *new.shape[1:]), new.dtype)
        vector[places] = new
        vector[kept] = old
        return vector

    return TokenSequence.of(
        filled(ids, new_ids),
        role=filled(role, table[:, 0]),
        weight=filled(weight, np.repeat(np.asarray(weights, np.float32), each)),
        slot=filled(-1, np.stack([table[:, 2], np.where(is_slot, table[:, 3] + within, -1)], axis=1)),
        block=filled(0, table[:, 1]),
        segments=tuple(segments),
    )
