"""Random token sequences as renderers make them: text, both-ways text, slots; one document or several."""

from __future__ import annotations

from hypothesis import strategies as st

from vertebra.sequence.branches import branched
from vertebra.sequence.tokens import Role, TokenSequence

SPEAKERS = (Role.TEXT, Role.SYSTEM, Role.USER, Role.ASSISTANT)


@st.composite
def pieces(draw, *, blocks: bool = True) -> TokenSequence:
    length = draw(st.integers(1, 4))
    block = draw(st.sampled_from([0, 0, 1])) if blocks else 0
    if draw(st.sampled_from(["text", "text", "slots"])) == "slots":
        name = draw(st.sampled_from(["image", "boxes", "action"]))
        slot = [(0, k) for k in range(length)]
        return TokenSequence.of([3] * length, slot=slot, segments=[name], role=Role.IMAGE, block=block)
    return TokenSequence.of(
        draw(st.lists(st.integers(0, 40), min_size=length, max_size=length)),
        role=draw(st.sampled_from(SPEAKERS)),
        weight=draw(st.lists(st.sampled_from([0.0, 0.0, 1.0, 0.5]), min_size=length, max_size=length)),
        type=draw(st.integers(0, 1)),
        block=block,
    )


def samples(*, blocks: bool = True, most: int = 4) -> st.SearchStrategy[TokenSequence]:
    """One document."""
    return st.lists(pieces(blocks=blocks), min_size=1, max_size=most).map(TokenSequence.join)


@st.composite
def branching(draw) -> TokenSequence:
    """One document: a trunk and one to three branches."""
    trunk = draw(samples(blocks=False, most=2))
    return branched(trunk, draw(st.lists(samples(blocks=False, most=2), min_size=1, max_size=3)))


def packed(*, blocks: bool = True, branches: bool = True, most: int = 3) -> st.SearchStrategy[TokenSequence]:
    """One to several documents in a row."""
    one = samples(blocks=blocks, most=2)
    if blocks and branches:
        one = st.one_of(one, branching())
    parts = st.lists(one, min_size=1, max_size=most)
    return parts.map(lambda part: TokenSequence.join(part, new_documents=True))


def batches_of(rows: st.SearchStrategy[TokenSequence]) -> st.SearchStrategy[list[TokenSequence]]:
    return st.lists(rows, min_size=1, max_size=4)
