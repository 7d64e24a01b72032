"""Mixtures: by weights, nothing lost or twice, the same from any position on, the same over shards, exact at resume."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.data.samples.causal import Windows, fitted
from vertebra.data.samples.mixture import STOPS, Mixture, TableMixture, interleaved
from vertebra.data.samples.samples import Picked
from vertebra.errors import ConfigError, DataError, UnknownNameError

from .tables import table_of

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def items(sizes) -> dict[str, list[str]]:
    return {f"s{number}": [f"{number}.{i}" for i in range(size)] for number, size in enumerate(sizes)}


def mixture(sizes, *, known: bool = True, **options) -> Mixture:
    sources = items(sizes)
    if not known:
        sources = {name: (lambda rows=rows: iter(rows)) for name, rows in sources.items()}
    return Mixture(sources, **options)


def texts(rows) -> list[str]:
    return [row.fields["text"] for row in rows]


@settings(max_examples=50)
@given(sizes=SIZES, stop=st.sampled_from(STOPS), seed=st.integers(0, 3), epoch=st.integers(0, 2), known=st.booleans())
def test_what_an_epoch_holds(sizes, stop, seed, epoch, known):
    made = mixture(sizes, known=known, stop=stop, seed=seed, epoch=epoch, weights=[i + 1 for i in range(len(sizes))])
    seen = texts(made.rows())
    counts = Counter(seen)
    per_source = [sum(counts[text] for text in rows) for rows in items(sizes).values()]
    if stop == "each_once":
        assert Counter(text for rows in items(sizes).values() for text in rows) == counts
    elif stop == "first_exhausted":
        assert max(counts.values(), default=1) == 1
        assert any(count == size for count, size in zip(per_source, sizes, strict=True))
    else:
        assert all(count >= size for count, size in zip(per_source, sizes, strict=True))
    # Inside a source the order stays, pass after pass.
    for number, size in enumerate(sizes):
        own = [int(text.split(".")[1]) for text in seen if text.startswith(f"{number}.")]
        assert own == [i % size for i in range(len(own))]
    if known:
        assert made.units() == len(seen)
        which, _ = interleaved(sizes, list(made.weights.values()), seed=seed, epoch=epoch, stop=stop)
        assert which.tolist() == [int(text.split(".")[0]) for text in seen]


@settings(max_examples=50)
@given(sizes=SIZES, stop=st.sampled_from(STOPS), count=st.integers(1, 5), data=st.data())
def test_any_position_and_any_shards(sizes, stop, count, data):
    whole = texts(mixture(sizes, stop=stop).rows())
    start = data.draw(st.integers(0, len(whole)))
    assert texts(mixture(sizes, stop=stop).rows(start)) == whole[start:]
    shards = [texts(mixture(sizes, stop=stop).shard(index, count)) for index in range(count)]
    assert [text for position in range(len(whole)) for text in [shards[position % count][position // count]]] == whole
    assert sum(map(len, shards)) == len(whole)


@given(sizes=SIZES, stop=st.sampled_from(STOPS), data=st.data())
def test_a_state_goes_through_json_and_resumes_exactly(sizes, stop, data):
    whole = texts(mixture(sizes, stop=stop, epoch=3).rows())
    taken = data.draw(st.integers(0, len(whole)))
    first = mixture(sizes, stop=stop, epoch=3)
    assert texts(islice(first.rows(), taken)) == whole[:taken]
    second = mixture(sizes, stop=stop)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert texts(second.rows()) == whole[taken:]
    assert second.epoch == 3


def test_weights_rule_while_all_last():
    made = mixture([50_000, 50_000], weights={"s0": 3, "s1": 1})
    first = texts(islice(made.rows(), 20_000))
    assert abs(sum(text.startswith("0.") for text in first) / 20_000 - 0.75) < 0.01
    assert texts(islice(made.at_epoch(1).rows(), 100)) != first[:100]


@settings(max_examples=40)
@given(sizes=SIZES, stop=st.sampled_from(STOPS), seed=st.integers(0, 3), shuffle=st.booleans())
def test_tables_are_mixed_in_the_same_way(sizes, stop, seed, shuffle):
    tables = {f"t{n}": table_of([[100 * n + i] for i in range(size)]) for n, size in enumerate(sizes)}
    mixed = TableMixture(tables, stop=stop)
    order = mixed.order(1, seed, shuffle=shuffle)
    ids = [int(mixed.vectors(int(index))["ids"][0]) for index in order]
    which, _ = interleaved(sizes, [1.0] * len(sizes), seed=seed, epoch=1, stop=stop)
    assert [token // 100 for token in ids] == which.tolist()
    for number, size in enumerate(sizes):
        own = [token % 100 for token in ids if token // 100 == number]
        for start in range(0, len(own) - size + 1, size):
            assert sorted(own[start : start + size]) == list(range(size))
        if not shuffle:
            assert own == [i % size for i in range(len(own))]
    assert [mixed.name_of(int(index)) for index in order] == [f"t{number}" for number in which]
    if stop == "each_once":
        assert sorted(order.tolist()) == list(range(sum(sizes)))
    assert mixed.where(int(order[0])).startswith("rows:")


def test_epochs_differ_and_seeds_differ():
    mixed = TableMixture({"a": table_of([[i] for i in range(30)]), "b": table_of([[i] for i in range(30)])})
    orders = [mixed.order(epoch, seed).tolist() for epoch, seed in [(0, 0), (1, 0), (0, 1), (0, 0)]]
    assert orders[0] == orders[3]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_settings_that_cannot_work():
    with pytest.raises(ConfigError, match=r"3 weights for 2 sources \(s0, s1\)"):
        mixture([1, 1], weights=[1, 2, 3])
    with pytest.raises(UnknownNameError, match="Did you mean `s1`"):
        mixture([1, 1], weights={"s0": 1, "s2": 1})
    with pytest.raises(ConfigError, match="no weight for s1"):
        mixture([1, 1], weights={"s0": 1})
    with pytest.raises(ConfigError, match="above 0"):
        mixture([1, 1], weights=[1, 0])
    with pytest.raises(ConfigError, match="no sources"):
        Mixture({})
    with pytest.raises(UnknownNameError, match="each_once"):
        mixture([1], stop="each-once")
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        list(mixture([1]).shard(2, 2))
    with pytest.raises(DataError, match="no samples"):
        TableMixture({"a": table_of([])})
    with pytest.raises(DataError, match="cannot be repeated"):
        list(Mixture({"a": [], "b": ["x"]}, stop="all_exhausted").rows())
    other = mixture([1, 1], weights=[1, 2])
    with pytest.raises(ConfigError, match="another order"):
        other.load_state_dict(mixture([1, 1]).state_dict())


def test_a_mixture_is_made_last():
    """A view that numbers samples anew would lose the weights in silence."""
    mixed = TableMixture({"a": table_of([[1, 2, 3], [4]])})
    assert fitted(mixed, 3) is mixed
    for cut in (lambda: fitted(mixed, 2, too_long="drop"), lambda: Windows(mixed, 2), lambda: Picked(mixed, [0])):
        with pytest.raises(ConfigError, match="then mix"):
            cut()


def test_prints_and_parts():
    assert mixture([2, 3]).fingerprint() == mixture([2, 3]).fingerprint()
    assert mixture([2, 3]).fingerprint() != mixture([2, 3], seed=1).fingerprint()
    assert mixture([2], known=False).fingerprint() is None
    made = mixture([2, 3])
    names = [made.source_of(raw) for raw in made.raw()]
    assert Counter(names) == {"s0": 2, "s1": 3}
    assert np.array_equal(TableMixture({"a": table_of([[1, 2], [3]])}).lengths, [2, 1])
