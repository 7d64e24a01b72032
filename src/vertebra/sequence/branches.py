"""Rows that begin alike, as one row: what they share stands there once, and each goes on in a branch that no other sees.

    alone       <s> line line  What is the total? 9.50 </s>        <s> line line  When? 12/03 </s>
    as one      <s> line line │ What is the total? 9.50 </s> │ When? 12/03 </s>
    block        0   0    0     -1  …                          -2  …
    position     0   1    2      3  …                           3  …

Every position sees what it would see alone, from where it would stand alone; so losses and gradients are those of the rows
apart, for the price of the shared part once. Training asks a page as it will be asked. It knows no pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vertebra.errors import SequenceError
from vertebra.sequence.tokens import TokenSequence


def tail_of(sequence: TokenSequence, head: int) -> TokenSequence:
    """What stands behind the first `head` positions, as a part of its own: its slots are counted from 0 on."""
    tail = sequence.cut(head)
    before = sequence.slot[:head, 0]
    counts = np.array([*(int((before == n).sum()) for n in range(len(sequence.segments))), 0])
    index = np.where(tail.slot[:, 0] >= 0, tail.slot[:, 1] - counts[tail.slot[:, 0]], -1)
    return tail.with_vectors(slot=np.stack([tail.slot[:, 0], index], 1))


def branched(trunk: TokenSequence, tails: Sequence[TokenSequence]) -> TokenSequence:
    """The shared part, in which pictures may see themselves both ways, and what goes on from it. Items of their slots are those
    of the trunk, then of one tail after the other."""
    lengths = [len(tail) for tail in tails]
    if not len(trunk) or not lengths or not all(lengths):
        raise SequenceError(f"a trunk of {len(trunk)} positions and tails of {lengths}; expected each to have some")
    joined = TokenSequence.join([trunk, *tails])
    block, document = joined.block, joined.document
    if document.any() or block[len(trunk) :].any() or int(block.min()) < 0:
        what = next(what for what, one in _parts(trunk, tails) if one.document.any() or one.block.any())
        raise SequenceError(
            f"{what} has branches, blocks or several documents; a row of branches is one document, and causal behind "
            "its trunk"
        )
    # arrays of a sequence that was just joined: nobody else has them
    starts = np.cumsum([len(trunk), *lengths])[:-1]
    block[len(trunk) :] = np.repeat(-np.arange(1, 1 + len(tails)), lengths)
    after = int(trunk.position.max()) + 1
    joined.position[len(trunk) :] += after - np.repeat(joined.position[starts], lengths)
    return joined


def _parts(trunk: TokenSequence, tails: Sequence[TokenSequence]) -> Iterator[tuple[str, TokenSequence]]:
    """The parts by their names in messages. Only the trunk may have blocks."""
    for number, tail in enumerate(tails):
        yield f"tail {number}", tail
    yield "the trunk", trunk
