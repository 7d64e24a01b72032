"""The rule of who sees whom, against one that looks at every pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.errors import SequenceError
from vertebra.sequence import visibility
from vertebra.sequence.batch import collate
from vertebra.sequence.tokens import Role, TokenSequence
from vertebra.sequence.visibility import allowed, looks_ahead

from .samples import batches_of, packed


def plain_allowed(batch, window=None, may=lambda row, i, j: True):
    """Pair by pair."""
    real, document = batch.attention_mask.tolist(), batch.document.tolist()
    block, position = batch.block.tolist(), batch.position_ids.tolist()
    table = []
    for r in range(batch.rows):
        rows = []
        for i in range(batch.length):
            row = []
            for j in range(batch.length):
                if not real[r][i]:
                    row.append(i == j)
                    continue
                sees = bool(real[r][j]) and document[r][i] == document[r][j]
                sees = sees and (j <= i or (block[r][i] == block[r][j] and block[r][i] > 0))
                sees = sees and (block[r][j] >= 0 or block[r][j] == block[r][i])
                if window is not None:
                    sees = sees and position[r][i] - position[r][j] < window
                row.append(sees and may(r, i, j))
            rows.append(row)
        table.append(rows)
    return table


@settings(max_examples=50, deadline=None)
@given(batches_of(packed()), st.sampled_from(["right", "left"]), st.sampled_from([None, 1, 2, 5]), st.integers(0, 10))
def test_allowed_is_the_plain_rule(sequences, side, window, first):
    batch = collate(sequences, pad_id=0, side=side)
    first = min(first, batch.length - 1)
    table = allowed(batch, window=window, first_query=first)
    plain = plain_allowed(batch, window)
    assert table.tolist() == [rows[first:] for rows in plain]
    assert table.any(-1).all()  # no row of the table is ever empty
    real = batch.attention_mask.tolist()
    later = any(
        sees and real[r][i] and j > i
        for r, rows in enumerate(plain_allowed(batch))
        for i, row in enumerate(rows)
        for j, sees in enumerate(row)
        if i >= first
    )
    assert bool(looks_ahead(batch, first_query=first)) is later


@pytest.mark.parametrize(("block", "number"), [([0, 1, 1, 0, 2, 2], 0), ([0, 0, -1, -1, -2, -2], 1)])
def test_the_pictures_of_the_docs(block, number):
    lines = [line.strip() for line in str(visibility.__doc__).splitlines() if "■" in line]
    drawn = [line.split()[:6] for line in lines[6 * number : 6 * number + 6]]
    table = allowed(collate([TokenSequence.of(range(6), block=block)], pad_id=0))[0]
    assert table.tolist() == [[mark == "■" for mark in line] for line in drawn]


def test_a_window_hides_the_past_alone():
    """Inside a block the later positions stay in sight however far they are, as in windowed layers of Gemma 3."""
    sequence = TokenSequence.of(range(6), block=1)
    table = allowed(collate([sequence], pad_id=0), window=2)[0]
    assert table[0].tolist() == [True] * 6
    assert table[5].tolist() == [False] * 4 + [True] * 2


IMAGE = TokenSequence.of(
    range(7),
    slot=[(-1, -1), (0, 0), (0, 1), (-1, -1), (1, 0), (-1, -1), (-1, -1)],
    segments=["image", "boxes"],
    role=[Role.TEXT, Role.IMAGE, Role.IMAGE, Role.USER, Role.PAGE, Role.ASSISTANT, Role.ASSISTANT],
)


@pytest.mark.parametrize(
    ("attend", "may"),
    [
        # text is blind to boxes
        (lambda q, k: ~k.fills("boxes") | q.fills("boxes"), lambda i, j: j != 4 or i == 4),
        # only the answer sees the image
        (
            lambda q, k: ~k.fills("image") | (q.role == Role.ASSISTANT) | (q.index == k.index),
            lambda i, j: j not in (1, 2) or i in (5, 6) or i == j,
        ),
        # everything that a rule can ask
        (
            lambda q, k: (q.position - k.position < 3) & (q.segment >= -1) & (k.slot <= 1) & (q.document == 0),
            lambda i, j: i - j < 3,
        ),
        (lambda q, k: (k.id != 2) | (q.id == 2), lambda i, j: j != 2 or i == 2),
        (lambda q, k: k.fills("nothing of that name") | (q.type == k.type), lambda i, j: True),
    ],
)
@pytest.mark.parametrize("side", ["right", "left"])
def test_free_rules(attend, may, side):
    batch = collate([IMAGE, TokenSequence.of(range(9))], pad_id=0, side=side)
    shift = 2 if side == "left" else 0
    expected = plain_allowed(batch, may=lambda r, i, j: r == 1 or may(i - shift, j - shift))
    assert allowed(batch, attend=attend)[0].tolist() == expected[0]


def test_rules_that_cannot_be():
    batch = collate([IMAGE], pad_id=0)
    with pytest.raises(SequenceError, match=r"positions that see nothing.*row 0, index 1.*query\.index == key\.index"):
        allowed(batch, attend=lambda q, k: ~k.fills("image") & (k.index > 0))
    with pytest.raises(SequenceError, match=r"row 0, index 5"):  # what the window leaves counts, too
        allowed(batch, attend=lambda q, k: (k.index == 0) | (q.index < 4), window=3, first_query=5)
    with pytest.raises(SequenceError, match=r"torch.int64 tensor"):
        allowed(batch, attend=lambda q, k: q.id * k.id)
    with pytest.raises(SequenceError, match="bool; expected"):
        allowed(batch, attend=lambda q, k: True)
    with pytest.raises(SequenceError, match=r"shape \(3,\)"):
        allowed(batch, attend=lambda q, k: torch.ones(3, dtype=torch.bool))
    with pytest.raises(AttributeError, match="Did you mean `segment`"):
        allowed(batch, attend=lambda q, k: q.segmnet == k.segment)
    with pytest.raises(SequenceError, match="window of 0"):
        allowed(batch, window=0)
