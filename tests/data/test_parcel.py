"""Batches between processes: what is opened is what was packed, of every type and shape, and one exchange brings it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.data import streams
from tests.data.tables import table_of
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.parcel import Parcel, packed, received, sent
from vertebra.data.loaders.samplers import InOrder
from vertebra.data.loaders.stream import Block
from vertebra.sequence.batch import Batch

DTYPES = (
    torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool, torch.float64, torch.float32, torch.bfloat16,
    torch.float16, torch.complex64,
)  # fmt: skip
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
tensors = st.builds(
    lambda dtype, shape, seed: (100 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))).to(dtype),
    st.sampled_from(DTYPES), shapes, st.integers(0, 99),
)  # fmt: skip
leaves = st.one_of(
    tensors, st.none(), st.integers(), st.text(max_size=3), tensors.map(lambda one: one.T if one.ndim == 2 else one)
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.dictionaries(st.text(max_size=2), inner, max_size=3).map(Batch),
        st.builds(Block, st.integers(), inner, st.just([])),
    ),
    max_leaves=12,
)


def same(one: Any, two: Any) -> bool:
    if type(one) is not type(two):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and one.shape == two.shape and torch.equal(one, two)
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[name], two[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


@given(trees)
def test_what_is_opened_is_what_was_packed(tree: Any):
    parcel = packed(tree)
    assert same(parcel.opened(), tree)
    there = pickle.loads(pickle.dumps(parcel))
    assert same(received(there), tree)


@given(st.lists(tensors, min_size=1, max_size=8))
def test_tensors_lie_apart_and_may_be_written(parts: list[torch.Tensor]):
    opened = packed(parts).opened()
    for number, part in enumerate(opened):
        part.zero_()
        assert all(torch.equal(one, two) for one, two in zip(opened[number + 1 :], parts[number + 1 :], strict=True))


def test_other_kinds_of_tensors_are_sent_as_they_are():
    weight, sparse = torch.nn.Parameter(torch.ones(2)), torch.eye(3).to_sparse()
    parcel = packed([weight, sparse, torch.ones(3)])
    opened = parcel.opened()
    assert opened[0] is weight
    assert opened[1] is sparse
    assert torch.equal(opened[2], torch.ones(3))


def test_here_nothing_is_packed():
    batch = Batch(input_ids=torch.ones(1, 2))
    assert sent(batch) is batch
    assert received(batch) is batch


@pytest.mark.parametrize("workers", [0, 2])
def test_one_exchange_a_batch(workers: int, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """The tensors of a batch look into one; without workers each is its own."""
    table = table_of([[i] * (1 + i % 3) for i in range(7)])
    file = tmp_path / "rows.txt"
    file.write_text("\n".join(streams.rows(9)))
    opened: list[Parcel] = []
    plain = Parcel.opened

    def noted(parcel: Parcel) -> Any:
        opened.append(parcel)
        return plain(parcel)

    monkeypatch.setattr(Parcel, "opened", noted)
    for made in (
        Loader(table, InOrder(2), Collator(0), workers=workers, shift=False, pin_memory=False),
        streams.loader(str(file), InOrder(2), workers=workers),
    ):
        for batch in made:
            own = {
                one.untyped_storage().data_ptr() for one in batch.values() if isinstance(one, torch.Tensor) and len(one)
            }
            assert len(own) == 1 if workers else len(own) > 3
    assert len(opened) > 3 if workers else not opened
