"""`TokenSequence`: what is filled in, what is refused, and joining held against one position after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vertebra.errors import SequenceError
from vertebra.sequence.roles import NO_TARGET, Role
from vertebra.sequence.tokens import VECTORS, TokenSequence

SLOT = {"slot": [[0, 0], [-1, -1]], "segments": ("image",)}


@st.composite
def sequences(draw) -> TokenSequence:
    length = draw(st.integers(0, 6))
    segments = draw(st.sampled_from([(), ("image",), ("boxes", "image")]))
    slot, seen = [], dict.fromkeys(segments, 0)
    for _ in range(length):
        name = draw(st.sampled_from([None, *segments]))
        slot.append((-1, -1) if name is None else (segments.index(name), seen[name]))
        if name is not None:
            seen[name] += 1
    block = draw(st.lists(st.integers(-2, 2), min_size=length, max_size=length))
    document = sorted(draw(st.lists(st.integers(0, 2), min_size=length, max_size=length)))
    document = [sorted(set(document)).index(number) for number in document]
    return TokenSequence.of(range(length), slot=slot, segments=segments, block=block, document=document)


@given(st.lists(sequences(), max_size=4), st.booleans())
def test_joining_is_one_position_after_the_other(parts, new_documents):
    joined = TokenSequence.join(parts, new_documents=new_documents)
    counts: dict[str, int] = {}
    at = next_position = next_document = next_block = next_branch = 0
    for part in parts:
        inside = dict(counts)
        for i in range(len(part)):
            assert joined.ids[at] == part.ids[i]
            block = part.block[i]
            assert joined.block[at] == block + (next_block if block > 0 else next_branch if block < 0 else 0)
            assert joined.document[at] == part.document[i] + (next_document if new_documents else 0)
            assert joined.position[at] == part.position[i] + (0 if new_documents else next_position)
            segment, index = part.slot[i]
            if segment < 0:
                assert joined.slot[at].tolist() == [-1, -1]
            else:
                name = part.segments[segment]
                assert joined.segments[joined.slot[at, 0]] == name
                assert joined.slot[at, 1] == index + inside.get(name, 0)
                counts[name] = counts.get(name, 0) + 1
            at += 1
        next_block += max([0, *part.block.tolist()])
        next_branch += min([0, *part.block.tolist()])
        next_document += max(part.document.tolist(), default=-1) + 1
        next_position += max(part.position.tolist(), default=-1) + 1
    assert at == len(joined)


def test_what_is_not_given_is_filled_in():
    sequence = TokenSequence.of([7, 8], role=Role.USER, **SLOT)
    assert sequence.target.tolist() == [NO_TARGET, 8]
    assert sequence.role.tolist() == [3, 3]
    assert sequence.position.tolist() == [0, 1]
    assert TokenSequence.of([1, 2, 3], document=[0, 1, 1]).position.tolist() == [0, 0, 1]
    assert all(len(getattr(TokenSequence.of([]), name)) == 0 for name in VECTORS)


@pytest.mark.parametrize("ids", [[1, 2], (1, 2), range(1, 3), np.array([1, 2]), torch.tensor([1, 2]), iter([1, 2])])
def test_ids_may_come_as_any_row_of_whole_numbers(ids):
    assert TokenSequence.of(ids).ids.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"ids": ["a"]}, "`ids` holds .*expected whole numbers"),
        ({"ids": [1.5]}, "`ids` holds float64"),
        ({"ids": None}, "`ids`"),
        ({"ids": [[1, 2], [3]]}, "`ids` is .* one length"),
        ({"ids": [-200, 1]}, "`ids` holds -200"),
        ({"ids": [1, 2], "position": [0.5, 1]}, "`position` holds float64"),
        ({"ids": [1, 2], "document": [-1, 0]}, "`document` holds -1"),
        ({"ids": [1, 2], "weight": ["x", "y"]}, "`weight` is"),
        ({"ids": [1, 2], "weight": [1.0]}, r"`weight` has shape \(1,\)"),
        ({"ids": [1, 2], "wieght": 1.0}, "Did you mean `weight`"),
        ({"ids": [1, 2], "slot": [[0, 0]], "segments": ("image",)}, r"`slot` has shape \(1, 2\)"),
        ({"ids": [1, 2], "slot": [[1, 0], [-1, -1]], "segments": ("image",)}, "names segment 1"),
        ({"ids": [1, 2], "slot": [[0, -1], [-1, -1]], "segments": ("image",)}, "both 0 or more"),
        ({"ids": [1, 2], "slot": [[-1, 3], [-1, -1]], "segments": ("image",)}, "both 0 or more"),
        ({"ids": [1, 2], "slot": [[-2, -2], [-1, -1]], "segments": ("image",)}, "both 0 or more"),
        ({"ids": [1], "segments": "image"}, "expected names"),
        ({"ids": [1], "segments": ("a", "a")}, "each once"),
    ],
)
def test_vectors_that_contradict_themselves(given, text):
    with pytest.raises(SequenceError, match=text):
        TokenSequence.of(**given)


def test_replacing_vectors():
    sequence = TokenSequence.of([1, 2])
    changed = sequence.with_vectors(weight=[0, 1])
    assert changed.weight.dtype == np.float32
    assert changed.supervised == 1
    assert sequence.supervised == 0
    with pytest.raises(SequenceError, match="Did you mean `weight`"):
        sequence.with_vectors(wieght=[0, 1])
    with pytest.raises(SequenceError, match="`ids` has shape"):
        sequence.with_vectors(ids=[[1], [2]])
