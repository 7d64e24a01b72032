"""Injection against a plain loop, and the properties that every use of it rests on."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sequence.samples import batches_of, packed
from vertebra.errors import InjectionError, UnknownNameError
from vertebra.model.inject import Encoded, Injection, inject, place
from vertebra.sequence.batch import Batch, collate
from vertebra.sequence.tokens import TokenSequence

WIDTH = 5
some = settings(max_examples=40, deadline=None)
rows_of = batches_of(packed(blocks=False))


def encode(batch: Batch, *, seed: int = 0, added: tuple[str, ...] = (), dtype=torch.float32) -> dict[str, Encoded]:
    """One embedding an item for every slot of the batch; what a row gets depends on the row's own count alone."""
    made = {}
    for number, name in enumerate(batch.segments):
        counts = (batch.slot[..., 0] == number).sum(1)
        rows = torch.arange(batch.rows).repeat_interleave(counts)
        generator = torch.Generator().manual_seed(seed + number)
        values = torch.randn(len(rows), 1, WIDTH, generator=generator, dtype=dtype)
        made[name] = Encoded(values=values, rows=rows, added=name in added)
    return made


def embeddings(batch: Batch, seed: int = 9, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch.input_ids.shape, WIDTH, generator=generator, dtype=dtype)


def plainly(batch: Batch, encoded: dict[str, Encoded], embeds: torch.Tensor) -> torch.Tensor:
    """Position by position, as the issue says it."""
    result = embeds.clone()
    for row in range(batch.rows):
        for column in range(batch.length):
            segment, index = batch.slot[row, column].tolist()
            if segment < 0:
                continue
            made = encoded[batch.segments[segment]]
            own = made.values[made.rows == row].reshape(-1, embeds.shape[2])[index]
            result[row, column] = embeds[row, column] + own if made.added else own
    return result


@some
@given(rows_of, st.sampled_from(["left", "right"]), st.sampled_from([(), ("image",), ("boxes", "action")]))
def test_equals_a_plain_loop(sequences, side, added):
    batch = collate(sequences, pad_id=0, side=side)
    encoded, embeds = encode(batch, added=added), embeddings(batch)
    got = inject(embeds, place(batch, encoded, width=WIDTH))
    assert torch.equal(got, plainly(batch, encoded, embeds))


@some
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=4), st.integers(1, 4))
def test_an_item_fills_several_slots(counts, of_one):
    """Rows of images of `of_one` patches each, and of single vectors."""
    rows = []
    for images, vectors in counts:
        slot = [(0, i) for i in range(images * of_one)] + [(1, i) for i in range(vectors)]
        rows.append(TokenSequence.of([7] * (len(slot) + 1), slot=[(-1, -1), *slot], segments=["image", "proprio"]))
    batch = collate(rows, pad_id=0)
    encoded = {}
    for name, column, k in (("image", 0, of_one), ("proprio", 1, 1)):
        owners = torch.arange(len(counts)).repeat_interleave(torch.tensor([pair[column] for pair in counts]))
        encoded[name] = Encoded(values=torch.randn(len(owners), k, WIDTH), rows=owners)
    embeds = embeddings(batch)
    assert torch.equal(inject(embeds, place(batch, encoded, width=WIDTH)), plainly(batch, encoded, embeds))


@some
@given(rows_of, st.data())
def test_cut_anywhere_it_is_the_same(sequences, data):
    """Any stretches, in any number, and whatever lies beyond the table."""
    batch = collate(sequences, pad_id=0)
    table = place(batch, encode(batch, added=("boxes",)), width=WIDTH)
    longer = torch.cat([embeddings(batch), torch.randn(batch.rows, 3, WIDTH)], 1)
    cuts = sorted({0, longer.shape[1], *data.draw(st.lists(st.integers(0, longer.shape[1]), max_size=4))})
    parts = [inject(longer[:, a:b], table, start=a) for a, b in pairwise(cuts)]
    assert torch.equal(torch.cat(parts, 1), inject(longer, table))
    assert torch.equal(inject(longer, table)[:, batch.length :], longer[:, batch.length :])


@some
@given(rows_of, st.data())
def test_rows_permuted_and_repeated(sequences, data):
    batch = collate(sequences, pad_id=0)
    chosen = data.draw(st.lists(st.integers(0, batch.rows - 1), min_size=1, max_size=6))
    embeds, table = embeddings(batch), place(batch, encode(batch), width=WIDTH)
    expected = inject(embeds, table)[chosen]
    assert torch.equal(inject(embeds[chosen], table.select(chosen)), expected)
    assert table.select(chosen).values is table.values
    # … and when the raw items go with the rows, as `Batch.select` takes them
    items = {
        name: {"values": made.values[:, 0], "rows": made.rows} for name, made in encode(batch).items() if len(made.rows)
    }
    picked = Batch({**batch, "features": items}).select(chosen)
    again = {
        name: Encoded(values=block["values"].unsqueeze(1), rows=block["rows"])
        for name, block in picked.features.items()
    }
    assert torch.equal(inject(embeds[chosen], place(picked, again, width=WIDTH)), expected)


@some
@given(rows_of)
def test_the_padding_side_does_not_matter(sequences):
    left, right = (collate(sequences, pad_id=0, side=side) for side in ("left", "right"))
    by_id = torch.randn(64, WIDTH)
    got = {}
    for side, batch in (("left", left), ("right", right)):
        table = place(batch, encode(batch), width=WIDTH)
        got[side] = inject(by_id[batch.input_ids], table)[batch.attention_mask.bool()]
    assert torch.equal(got["left"], got["right"])


@some
@given(rows_of, st.data())
def test_local_and_supervised_tokens_unchanged(sequences, data):
    batch = collate(sequences, pad_id=0)
    encoded, embeds = encode(batch), embeddings(batch)
    got = inject(embeds, place(batch, encoded, width=WIDTH))
    own = batch.slot[..., 0] < 0
    assert torch.equal(got[own], embeds[own])
    learned = (batch.weights > 0) & own
    assert torch.equal(got[learned], embeds[learned])
    filled = [name for name, made in encoded.items() if len(made.values)]
    if filled:
        name = data.draw(st.sampled_from(filled))
        item = data.draw(st.integers(0, len(encoded[name].values) - 1))
        values = encoded[name].values.clone()
        values[item] += 1
        after = inject(
            embeds, place(batch, {**encoded, name: Encoded(values=values, rows=encoded[name].rows)}, width=WIDTH)
        )
        moved = (after != got).any(-1).nonzero().tolist()
        row = int(encoded[name].rows[item])
        index = int((encoded[name].rows[:item] == row).sum())
        segment = batch.segments.index(name)
        assert (
            moved
            == (batch.slot == torch.tensor([segment, index]))
            .all(-1)
            .logical_and(torch.arange(batch.rows)[:, None] == row)
            .nonzero()
            .tolist()
        )


@some
@given(rows_of, st.data())
def test_every_wrong_row_is_named_and_no_other(sequences, data):
    batch = collate(sequences, pad_id=0)
    encoded = encode(batch)
    if not encoded:
        return
    name = data.draw(st.sampled_from(sorted(encoded)))
    change = data.draw(st.lists(st.integers(-1, 1), min_size=batch.rows, max_size=batch.rows))
    have = torch.bincount(encoded[name].rows, minlength=batch.rows)
    now = (have + torch.tensor(change)).clamp(min=0)
    rows = torch.arange(batch.rows).repeat_interleave(now)
    encoded[name] = Encoded(values=torch.randn(len(rows), 1, WIDTH), rows=rows)
    wrong = [row for row in range(batch.rows) if now[row] != have[row]]
    if not wrong:
        place(batch, encoded, width=WIDTH)
        return
    with pytest.raises(InjectionError) as caught:
        place(batch, encoded, width=WIDTH)
    message = str(caught.value)
    assert [row for row in range(batch.rows) if f"row {row} has" in message] == wrong[:5]


@settings(max_examples=15, deadline=None)
@given(rows_of, st.sampled_from([(), ("image", "boxes")]))
def test_exact_gradients_and_nothing_in_place(sequences, added):
    batch = collate(sequences, pad_id=0)
    encoded = encode(batch, added=added, dtype=torch.float64)
    table = place(batch, encoded, width=WIDTH)
    embeds = embeddings(batch, dtype=torch.float64).requires_grad_()
    values = table.values.double().clone().requires_grad_()

    def through(embeds, values):
        return inject(embeds, Injection(where=table.where, values=values, added=table.added))

    before = embeds.detach().clone(), values.detach().clone(), embeds._version, values._version
    assert torch.autograd.gradcheck(through, (embeds, values), atol=1e-7)
    assert torch.equal(embeds, before[0])
    assert torch.equal(values, before[1])
    assert (embeds._version, values._version) == before[2:]


def test_rows_without_any_cost_nothing():
    """A batch without outside embeddings hands back the very tensor; a text-only row has no values."""
    plain = collate([TokenSequence.of([1, 2, 3])], pad_id=0)
    embeds = embeddings(plain)
    assert inject(embeds, place(plain, {}, width=WIDTH)) is embeds
    assert inject(embeds, None) is embeds
    mixed = collate([TokenSequence.of([1, 2, 3]), TokenSequence.of([1], slot=[(0, 0)], segments=["image"])], pad_id=0)
    table = place(mixed, encode(mixed), width=WIDTH)
    assert len(table.values) == 1
    later = embeddings(mixed)
    assert inject(later, table, start=mixed.length) is later


def test_a_dense_table_says_the_same():
    slot = [(-1, -1), (0, 0), (0, 1)]
    batch = collate([TokenSequence.of([1, 2, 3], slot=slot, segments=["image"]), TokenSequence.of([4])], pad_id=0)
    table = place(batch, encode(batch), width=WIDTH)
    mask, dense = table.dense()
    assert mask.tolist() == [[False, True, True], [False, False, False]]
    embeds = embeddings(batch)
    assert torch.equal(torch.where(mask[..., None], dense, embeds), inject(embeds, table))


def bad(**changes: Any) -> tuple[Batch, dict[str, Encoded]]:
    row = TokenSequence.of([1, 2, 3, 4], slot=[(-1, -1), (0, 0), (0, 1), (-1, -1)], segments=["image"])
    batch = collate([row, row], pad_id=0)
    made = {"values": torch.zeros(4, 1, WIDTH), "rows": torch.tensor([0, 0, 1, 1])}
    return batch, {"image": Encoded(**{**made, **changes})}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": torch.zeros(4, 1, 3)}, "width 3; the embedding matrix has 5 columns"),
        ({"values": torch.zeros(4, 1, WIDTH, dtype=torch.long)}, "torch.int64; expected a floating-point type"),
        ({"values": torch.zeros(4, WIDTH)}, r"values of shape \(4, 5\)"),
        ({"values": torch.zeros(4, 1, WIDTH, device="meta")}, "on meta .* and the batch on cpu; move the whole batch"),
        ({"rows": torch.tensor([0, 0, 1, 7])}, "item of row 7 in a batch of 2 rows"),
        ({"rows": torch.tensor([0, 0, 0, 1])}, "row 0 has 3 items of `image`, 1 embeddings each, for 2 slots; row 1"),
        ({"rows": torch.tensor([0, 0, 1])}, "one whole number an item"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    batch, encoded = bad(**changes)
    with pytest.raises(InjectionError, match=message):
        place(batch, encoded, width=WIDTH)


def test_slots_that_name_one_embedding_twice():
    row = TokenSequence.of([1, 2], slot=[(0, 0), (0, 0)], segments=["image"])
    batch = collate([row], pad_id=0)
    encoded = {"image": Encoded(values=torch.zeros(2, 1, WIDTH), rows=torch.tensor([0, 0]))}
    with pytest.raises(InjectionError, match=r"row 0: the 2 slots of `image` name \[0, 0\]"):
        place(batch, encoded, width=WIDTH)


def test_a_segment_that_the_batch_lacks():
    batch, encoded = bad()
    with pytest.raises(UnknownNameError, match=r"imagee.*Did you mean `image`"):
        place(batch, {"imagee": encoded["image"]}, width=WIDTH)


def test_embeddings_of_other_rows_or_width():
    batch, encoded = bad()
    table = place(batch, encoded, width=WIDTH)
    with pytest.raises(InjectionError, match=r"a table of 2 rows and width 5.*injection\.select"):
        inject(torch.zeros(3, 4, WIDTH), table)
    with pytest.raises(InjectionError, match=r"start is -1"):
        inject(torch.zeros(2, 4, WIDTH), table, start=-1)
    with pytest.raises(InjectionError, match=r"on meta and outside embeddings on cpu"):
        inject(torch.zeros(2, 4, WIDTH, device="meta"), table)
