"""Cutting: what may go goes, in order, and nothing else ever does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.errors import SequenceError, TooLongError
from vertebra.sequence.length import cut_to
from vertebra.sequence.tokens import Role, TokenSequence

END = 9  # ends a line


@st.composite
def documents(draw):
    """Text, pages of lines (some with a slot, some supervised), answers; marked by unique ids where it matters."""
    parts = []
    for kind in draw(st.lists(st.sampled_from(["text", "page", "answer", "slot"]), min_size=1, max_size=5)):
        length = draw(st.integers(1, 5))
        if kind == "text":
            parts.append(TokenSequence.of([1] * length, role=Role.USER))
        elif kind == "answer":
            parts.append(TokenSequence.of([2] * length, role=Role.ASSISTANT, weight=1.0))
        elif kind == "slot":
            parts.append(TokenSequence.of([3], slot=[(0, 0)], segments=["image"], role=Role.IMAGE))
        else:
            ids = draw(st.lists(st.sampled_from([4, 5, END]), min_size=length, max_size=3 * length))
            weight = [draw(st.sampled_from([0.0] * 9 + [1.0])) for _ in ids]
            parts.append(TokenSequence.of(ids, role=Role.PAGE, weight=weight))
    whole = TokenSequence.join(parts)
    return TokenSequence.join([whole, whole], new_documents=True) if draw(st.booleans()) else whole


def plain_cut(sequence, limit):
    """Indices that remain: positions taken one text position, or one line, at a time. None where it cannot be."""
    keep = list(range(len(sequence)))
    fixed = [sequence.weight[i] > 0 or sequence.slot[i, 0] >= 0 for i in range(len(sequence))]
    is_page = [sequence.role[i] == Role.PAGE for i in range(len(sequence))]
    while keep and len(keep) > limit and not fixed[keep[-1]] and not is_page[keep[-1]]:
        keep.pop()
    # pages, last first; a page is a run of page positions of one document
    pages: list[list[int]] = []
    for i in range(len(sequence)):
        if is_page[i]:
            if i and is_page[i - 1] and sequence.document[i] == sequence.document[i - 1]:
                pages[-1].append(i)
            else:
                pages.append([i])
    for page in reversed(pages):
        lines: list[list[int]] = [[]]
        for i in page:
            lines[-1].append(i)
            if sequence.ids[i] == END:
                lines.append([])
        for line in reversed([line for line in lines if line]):
            if len(keep) <= limit or any(fixed[i] for i in line):
                break
            keep = [i for i in keep if i not in line]
    return keep if len(keep) <= limit else None


@settings(max_examples=80, deadline=None)
@given(documents(), st.data())
def test_cut_is_the_plain_one(sequence, data):
    limit = data.draw(st.integers(1, len(sequence)))
    keep = plain_cut(sequence, limit)
    if keep is None:
        with pytest.raises(TooLongError):
            cut_to(sequence, limit, line_ends=[END])
        return
    short = cut_to(sequence, limit, line_ends=[END])
    assert short.ids.tolist() == sequence.ids[keep].tolist()
    assert short.supervised == sequence.supervised
    assert short.slot_count("image") == sequence.slot_count("image")
    # what remains counts on without gaps, in each document
    expected = [i - short.document.tolist().index(d) for i, d in enumerate(short.document.tolist())]
    assert short.position.tolist() == expected


def test_short_enough_is_left_alone():
    sequence = TokenSequence.of([1, 2, 3])
    assert cut_to(sequence, 3) is sequence


def test_own_positions_stay_relative():
    sequence = TokenSequence.of([4, END, 5, END, 1, 2], role=[7, 7, 7, 7, 3, 4], weight=[0] * 5 + [1], position=[
        0, 1, 5, 6, 20, 22,
    ])  # fmt: skip
    assert cut_to(sequence, 4, line_ends=[END]).position.tolist() == [0, 1, 5, 7]


def test_the_refusal_says_what_is_protected_and_what_to_do():
    page = TokenSequence.of([4, END, 5, END, 2], role=[7, 7, 7, 7, 4], weight=[0, 0, 0, 0, 1])
    with pytest.raises(TooLongError, match=r"cannot be cut to 3: 5 remain.*1 supervised.*pass `line_ends`"):
        cut_to(page, 3)
    assert cut_to(page, 3, line_ends=[END]).ids.tolist() == [4, END, 2]
    with pytest.raises(TooLongError, match=r"8 slots"):
        cut_to(TokenSequence.of([3] * 8, slot=[(0, k) for k in range(8)], segments=["image"]), 4)
    with pytest.raises(SequenceError, match="at least 1"):
        cut_to(page, 0)
