"""Samplers and the loader: every sample once over ranks and workers, equal steps, resume at any batch, honest lengths."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import InOrder, LengthGrouped, Packed, Shuffled, slots_per_token
from vertebra.data.samples.causal import Blocks
from vertebra.data.samples.mixture import TableMixture
from vertebra.errors import ConfigError, DataError, TooLongError
from vertebra.sequence.batch import Batch
from vertebra.sequence.loss import count_items

from .tables import rows_strategy, table_of

SAMPLERS = {
    "in order": lambda size, **more: InOrder(size, **more),
    "shuffled": lambda size, **more: Shuffled(size, **more),
    "grouped": lambda size, **more: LengthGrouped(size, **more),
    "packed": lambda size, **more: Packed(size, 9, **more),
}


def loader(table, sampler, **options) -> Loader:
    return Loader(table, sampler, Collator(0, multiple_of=1), pin_memory=False, **options)


def counted(batches) -> Counter[int]:
    """Every supervised id, as often as it counts."""
    return Counter(int(token) for batch in batches for token in batch.input_ids[batch.weights > 0])


@settings(max_examples=50)
@given(
    rows=rows_strategy(most=20),
    name=st.sampled_from(list(SAMPLERS)),
    size=st.integers(1, 4),
    world=st.integers(1, 4),
    epoch=st.integers(0, 2),
)
def test_all_ranks_together_are_the_source_every_epoch(rows, name, size, world, epoch):
    table = table_of(rows)
    seen: Counter[int] = Counter()
    steps = set()
    for rank in range(world):
        one = loader(table, SAMPLERS[name](size), rank=rank, world=world)
        one.set_epoch(epoch)
        batches = list(one)
        assert max(batch.rows for batch in batches) <= size
        steps.add((len(batches), one.plan.epoch))
        seen += counted(batches)
    assert seen == Counter(token for row in rows if row is not None for token in row)
    assert len(steps) == 1


@settings(max_examples=40)
@given(
    rows=rows_strategy(most=20),
    name=st.sampled_from(list(SAMPLERS)),
    size=st.integers(1, 3),
    world=st.integers(1, 3),
    data=st.data(),
)
def test_resume_at_any_batch(rows, name, size, world, data):
    table = table_of(rows)

    def fresh() -> Loader:
        return loader(table, SAMPLERS[name](size, seed=3), rank=world - 1, world=world)

    whole = fresh()
    epochs = [list(whole), list(whole)]
    expected = [batch.input_ids.tolist() for epoch in epochs for batch in epoch]
    stop = data.draw(st.integers(0, len(expected) - 1))
    first = fresh()
    taken: list[list[list[int]]] = []
    state = first.state_dict()
    while len(taken) < stop:
        for batch in first:
            taken.append(batch.input_ids.tolist())
            state = first.state_dict()
            if len(taken) == stop:
                break
    second = fresh()
    second.load_state_dict(json.loads(json.dumps(state)))
    rest = [batch.input_ids.tolist() for batch in second]
    if len(taken) + len(rest) < len(expected):
        rest += [batch.input_ids.tolist() for batch in second]
    assert taken + rest[: len(expected) - len(taken)] == expected


def test_the_position_is_what_the_optimizer_has_used():
    """A trainer that has fetched three batches but stepped on one saves the position after one."""
    table = table_of([[i] * 2 for i in range(20)])
    first = loader(table, Shuffled(2))
    batches = [batch.input_ids.tolist() for _, batch in zip(range(4), first, strict=False)]
    state = first.state_dict(consumed=1)
    assert state["batches"] == 1
    second = loader(table, Shuffled(2))
    second.load_state_dict(state)
    assert next(iter(second)).input_ids.tolist() == batches[1]
    assert first.state_dict(consumed=10) == {**first.state_dict(consumed=0), "epoch": 1}
    with pytest.raises(ConfigError, match="this epoch has 10"):
        first.state_dict(consumed=11)


@pytest.mark.parametrize("name", ["grouped", "packed"])
def test_workers_change_nothing(name):
    table = table_of([list(range(i, i + 1 + i % 9)) for i in range(40)])
    plain = loader(table, SAMPLERS[name](3), shift=False)
    busy = loader(table, SAMPLERS[name](3), workers=2, shift=False)
    for _ in range(2):
        for expected, got in zip(plain, busy, strict=True):
            assert torch.equal(expected.input_ids, got.input_ids)
            assert torch.equal(expected.document, got.document)
    assert busy.epoch == 2
    for number, _ in enumerate(busy):
        if number == 2:
            break
    assert busy.state_dict()["batches"] == 3
    resumed = loader(table, SAMPLERS[name](3), workers=1, shift=False)
    resumed.load_state_dict(busy.state_dict())
    rest = [batch.input_ids.tolist() for batch in resumed]
    assert rest == [batch.input_ids.tolist() for batch in plain][3:]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of two cores torch says so
def test_more_workers_than_samples():
    table = table_of([[1, 2], [3, 4]])
    assert counted(loader(table, InOrder(1), workers=3)) == Counter([1, 2, 3, 4])


@given(size=st.integers(1, 4), world=st.integers(1, 5), count=st.integers(1, 30))
def test_the_length_is_the_number_of_batches(size, world, count):
    table = table_of([[i] for i in range(count)])
    for name, make in SAMPLERS.items():
        one = loader(table, make(size), rank=0, world=world, shift=False)
        assert len(one) == len(list(one)), name
        if name != "packed":
            assert len(make(size).plan(table, 0, world)) == -(-count // (size * world))
        if count < size * world:
            with pytest.raises(ConfigError, match="less than one global batch"):
                make(size, drop_last=True).plan(table, 0, world).share(0, 0, world)
        elif name != "packed":
            assert len(make(size, drop_last=True).plan(table, 0, world)) == count // (size * world)


def test_a_rank_without_a_row_repeats_one_that_weighs_nothing():
    table = table_of([[i, i] for i in range(5)])
    batches = [list(loader(table, InOrder(2), rank=rank, world=2)) for rank in range(2)]
    assert [len(epoch) for epoch in batches] == [2, 2]
    assert [float(count_items(epoch[-1])) for epoch in batches] == [0, 1]
    assert batches[0][-1].input_ids.tolist() == batches[1][-1].input_ids.tolist() == [[4, 4]]


def test_another_number_of_ranks_takes_up_the_same_rows():
    table = table_of([[i, 0] for i in range(24)])
    two = [loader(table, Shuffled(3), rank=rank, world=2) for rank in range(2)]
    taken = [[next(batches) for _ in range(2)] for batches in map(iter, two)]
    one = loader(table, Shuffled(6))
    one.load_state_dict(two[0].state_dict(consumed=2))
    rest = counted(one)
    assert counted([batch for batches in taken for batch in batches]) + rest == Counter([*range(24)] + [0] * 24)
    with pytest.raises(ConfigError, match="3 ranks × 3"):
        loader(table, Shuffled(3), rank=0, world=3).load_state_dict(two[0].state_dict())


def test_a_state_of_something_else_is_refused():
    table = table_of([[i, 0] for i in range(8)])
    state = loader(table, Shuffled(2)).state_dict()
    with pytest.raises(DataError, match="the data is not what it was"):
        loader(table_of([[i, 1] for i in range(8)]), Shuffled(2)).load_state_dict(state)
    with pytest.raises(ConfigError, match="another sampler, seed or capacity"):
        loader(table, Shuffled(2, seed=1)).load_state_dict(state)
    with pytest.raises(ConfigError, match="lacks data, settings"):
        loader(table, Shuffled(2)).load_state_dict({"epoch": 0, "batches": 0, "rows_a_step": 2})


def log_normal(count: int) -> np.ndarray:
    lengths = np.random.default_rng(0).lognormal(np.log(120), 0.8, count)
    return np.clip(lengths.astype(int), 2, 1024)


def test_padding_by_sampler():
    """The bounds that are promised: grouped within 1.1 slots a useful token, packed within 1.01, random far off."""
    table = table_of([np.zeros(length, int) for length in log_normal(6000)], chunk=1000)
    assert slots_per_token(table, Shuffled(8).plan(table, 0)) > 2
    for epoch in range(2):
        assert slots_per_token(table, LengthGrouped(8).plan(table, epoch), multiple_of=8) < 1.1
        assert slots_per_token(table, LengthGrouped(4).plan(table, epoch, 2), world=2, multiple_of=8) < 1.1
        plan = Packed(8, 1024).plan(table, epoch)
        assert (len(plan.rows) - 1) * 1024 / table.tokens < 1.01
    assert len(Packed(8, 1024).plan(table, 0)) == len(Packed(8, 1024).plan(table, 1))


def test_slots_per_token_against_the_batches():
    table = table_of([list(range(1 + i % 7)) for i in range(30)])
    for name, make in SAMPLERS.items():
        one = Loader(table, make(3), Collator(0, multiple_of=4), pin_memory=False)
        batches = list(one)
        slots = sum(batch.input_ids.numel() for batch in batches)
        assert slots_per_token(table, make(3).plan(table, 0), multiple_of=4) == pytest.approx(slots / table.tokens), (
            name
        )


def test_grouped_batches_change_and_begin_with_the_longest():
    table = table_of([np.zeros(length, int) for length in log_normal(400)], chunk=100)
    plans = [LengthGrouped(8).plan(table, epoch) for epoch in (0, 1)]
    for plan in plans:
        assert table.lengths.max() in table.lengths[plan.members[:8]]
    first = {frozenset(plan.members[i : i + 8].tolist()) for plan in plans[:1] for i in range(0, 400, 8)}
    second = {frozenset(plans[1].members[i : i + 8].tolist()) for i in range(0, 400, 8)}
    assert len(first & second) < 5


def test_packed_rows_keep_documents_apart():
    table = table_of([[1, 2, 3], [4, 5], [6, 7, 8, 9]])
    (batch,) = loader(table, Packed(2, 5))
    rows = {tuple(row): number for number, row in enumerate(batch.input_ids.tolist())}
    joined = batch.document[next(number for row, number in rows.items() if {1, 4} <= set(row))]
    assert joined.tolist() in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])
    with pytest.raises(TooLongError, match="index"):
        len(loader(table, Packed(2, 3)))


def test_samples_that_teach_nothing_stop_the_run():
    table = table_of([[1, 2], [3, 4]], weight=[[0, 1], [1, 0]])
    with pytest.raises(DataError, match=r"sample 1 \(rows:2\) has no supervised token"):
        list(loader(table, InOrder(1)))
    with pytest.raises(DataError, match=r"sample 1 \(rows:2\) has no supervised token"):
        list(loader(table, InOrder(1), workers=1))
    # One token left over for the last block is no fault of anybody.
    assert len(list(loader(Blocks(table_of([[1, 2, 3]]), 2), InOrder(1)))) == 2


def test_mixed_tables_in_a_loader():
    tables = {"a": table_of([[i] for i in range(10)]), "b": table_of([[100 + i] for i in range(3)])}
    one = loader(TableMixture(tables, {"a": 1, "b": 1}, stop="all_exhausted"), Shuffled(4), shift=False)
    seen = counted(one)
    assert all(seen[i] >= 1 for i in [*range(10), 100, 101, 102])
    assert sum(seen[100 + i] for i in range(3)) > 5
    assert len(one) == len(list(one))


def test_pinned_batches_are_whole(monkeypatch):
    """What torch does to a batch when it pins it, with the pinning itself (which needs an accelerator) left out."""
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor)
    (batch,) = loader(table_of([[1, 2], [3]]), InOrder(2))
    batch["segments"] = ("image",)
    pinned = pin_memory(batch)
    assert type(pinned) is Batch
    assert pinned.segments == ("image",)
    assert torch.equal(pinned.input_ids, batch.input_ids)


def test_settings_that_cannot_work(monkeypatch):
    table = table_of([[1, 2]])
    with pytest.raises(ConfigError, match="batch size of 0"):
        Shuffled(0)
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        loader(table, Shuffled(1), rank=2, world=2)
    with pytest.raises(ConfigError, match="workers"):
        loader(table, Shuffled(1), workers=-1)
    with pytest.raises(DataError, match="no samples"):
        loader(table_of([]), Shuffled(1))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert (loader(table, Shuffled(1)).rank, loader(table, Shuffled(1)).world) == (1, 3)
