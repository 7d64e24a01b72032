"""How long a sequence is, what its length is made of, and the only way in which it may be made shorter.

Patches and action slots count like tokens, so an error about length always says how many of each there are. Cutting
is a choice that has to be named. It takes positions from the end of unsupervised text, and whole lines from the end of
a page, and refuses where that is not enough. Knows no models and needs no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from vertebra.errors import SequenceError, TooLongError
from vertebra.sequence.tokens import VECTORS, Role, TokenSequence

SHOWN = 5
"""How many faulty rows an error spells out; the rest are counted."""


def composition(sequence: TokenSequence) -> str:
    """`2311 positions (2047 tokens, 256 slots of image, 8 slots of action)`."""
    counts = {name: sequence.slot_count(name) for name in sequence.segments}
    slots = [f"{count} slots of {name}" for name, count in counts.items() if count]
    tokens = len(sequence) - sum(counts.values())
    return f"{len(sequence)} positions ({', '.join([f'{tokens} tokens', *slots])})"


def refuse_too_long(sequences: Mapping[int, TokenSequence], limit: int, *, what: str, mend: str) -> None:
    """Raise one error that lists every sequence (by its number) of more than `limit` positions."""
    faults = [
        f"sequence {i} has {composition(sequence)}, {len(sequence) - limit} more than {what} of {limit}"
        for i, sequence in sequences.items()
        if len(sequence) > limit
    ]
    if faults:
        raise TooLongError(f"{listed(faults)}. {mend}")


def listed(faults: list[str]) -> str:
    """The first few faults in full, and how many more there are."""
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return "; ".join(faults[:SHOWN]) + more


def cut_to(sequence: TokenSequence, limit: int, *, line_ends: Collection[int] = ()) -> TokenSequence:
    """The sequence in at most `limit` positions, or `TooLongError` where what may go is not enough.

        page           line 1 ¶ line 2 ¶ line 3 ¶    question      answer      notes
                       ───────────────── ▲▲▲▲▲▲▲▲    ────────      ══════      ▲▲▲▲▲
                                         second                  supervised    first

    First the unsupervised text at the very end goes, position by position; then whole lines from the end of each page
    (role `PAGE`), the last page first. `line_ends` are the ids that end a line; without them no page is cut.
    Supervised positions and slots stay, and a line that holds one protects the lines before it. Positions close up.
    """
    if limit < 1:
        raise SequenceError(f"cannot cut to {limit} positions; at least 1 must remain")
    if len(sequence) <= limit:
        return sequence
    keep = np.ones(len(sequence), bool)
    for start, stop in _removable(sequence, frozenset(line_ends)):
        excess = int(keep.sum()) - limit
        if excess <= 0:
            break
        # A span of text gives up no more than is needed; a line goes whole.
        keep[start if sequence.role[start] == Role.PAGE else max(start, stop - excess) : stop] = False
    if int(keep.sum()) > limit:
        raise TooLongError(_why_not(sequence, limit, int(keep.sum()), line_ends))
    vectors = {name: getattr(sequence, name)[keep] for name in VECTORS}
    return sequence.with_vectors(**vectors | {"position": _closed_up(sequence, keep)})


def _removable(sequence: TokenSequence, line_ends: frozenset[int]) -> list[tuple[int, int]]:
    """Spans that may go, in the order in which they go."""
    protected = (sequence.weight > 0) | (sequence.slot[:, 0] >= 0)
    page = sequence.role == Role.PAGE
    stays = np.flatnonzero(protected | page)
    tail = int(stays[-1]) + 1 if len(stays) else 0
    spans = [(tail, len(sequence))] if tail < len(sequence) else []
    for start, stop in reversed(_runs(page, sequence.document)):
        for first, last in reversed(_lines(sequence.ids[start:stop], line_ends)):
            if not line_ends or protected[start + first : start + last].any():
                break
            spans.append((start + first, start + last))
    return spans


def _runs(chosen: np.ndarray, document: np.ndarray) -> list[tuple[int, int]]:
    """Half-open spans where `chosen` holds without a break, each inside one document."""
    starts = chosen & np.concatenate([[True], ~chosen[:-1] | (document[1:] != document[:-1])])
    ends = chosen & np.concatenate([~chosen[1:] | (document[1:] != document[:-1]), [True]])
    return [(int(a), int(b) + 1) for a, b in zip(np.flatnonzero(starts), np.flatnonzero(ends), strict=True)]


def _lines(ids: np.ndarray, line_ends: frozenset[int]) -> list[tuple[int, int]]:
    """Half-open spans of the lines of one page; the last may lack its line end."""
    ends = [i + 1 for i, token in enumerate(ids.tolist()) if token in line_ends]
    stops = ends if ends and ends[-1] == len(ids) else [*ends, len(ids)]
    return list(zip([0, *stops[:-1]], stops, strict=True))


def _closed_up(sequence: TokenSequence, keep: np.ndarray) -> np.ndarray:
    """Positions of what is kept, without the gaps that removed spans would leave inside a document."""
    position = sequence.position.copy()
    index = np.arange(len(sequence))
    for start, stop in _runs(~keep, sequence.document):
        if stop < len(sequence) and sequence.document[stop] == sequence.document[start]:
            after = (index >= stop) & (sequence.document == sequence.document[start])
            position[after] -= sequence.position[stop] - sequence.position[start]
    return position[keep]


def _why_not(sequence: TokenSequence, limit: int, least: int, line_ends: Collection[int]) -> str:
    supervised, slots = sequence.supervised, int((sequence.slot[:, 0] >= 0).sum())
    text = (
        f"the sequence has {composition(sequence)} and cannot be cut to {limit}: {least} remain after taking "
        f"unsupervised text from its end and whole lines from the end of its pages; {supervised} supervised positions "
        f"and {slots} slots are never cut."
    )
    if not line_ends and bool((sequence.role == Role.PAGE).any()):
        text += " It has a page: pass `line_ends`, the ids that end a line, so that whole lines can go."
    return f"{text} Otherwise make the sample shorter before it is rendered, or raise the limit."
