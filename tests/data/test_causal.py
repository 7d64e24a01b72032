"""Blocks, windows and rows against slow plain forms: nothing lost, nothing twice, targets where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra.data.samples.causal import Blocks, Windows, fitted
from vertebra.errors import ConfigError, TooLongError, UnknownNameError
from vertebra.sequence.tokens import Role

from .tables import rows_strategy, table_of


def ids(samples) -> list[list[int]]:
    return [samples.vectors(index)["ids"].tolist() for index in range(len(samples))]


def all_ids(rows) -> list[int]:
    return [token for row in rows if row is not None for token in row]


@given(rows=rows_strategy(), size=st.integers(2, 9), tail=st.sampled_from(["keep", "drop"]))
def test_blocks_hold_every_token_once(rows, size, tail):
    table = table_of(rows)
    whole = all_ids(rows)
    slow = [whole[start : start + size] for start in range(0, len(whole), size)]
    if tail == "drop":
        slow = [block for block in slow if len(block) == size]
        if not slow:
            with pytest.raises(ConfigError, match="less than one block"):
                Blocks(table, size, tail=tail)
            return
    blocks = Blocks(table, size, tail=tail)
    assert ids(blocks) == slow
    assert blocks.lengths.tolist() == [len(block) for block in slow]
    assert blocks.dropped == len(whole) - sum(map(len, slow))
    for index in range(len(blocks)):
        sequence = blocks.sequence(index)
        assert np.array_equal(sequence.target, sequence.ids)
        assert sequence.weight.tolist() == [1.0] * len(sequence)
        assert sequence.position.tolist() == list(range(len(sequence)))


@given(rows=rows_strategy(), size=st.integers(2, 9))
def test_isolated_blocks_number_their_documents(rows, size):
    blocks = Blocks(table_of(rows), size, isolate=True)
    document = {token: number for number, row in enumerate(rows) if row is not None for token in row}
    for index in range(len(blocks)):
        sequence = blocks.sequence(index)
        owners = [document[token] for token in sequence.ids.tolist()]
        order = {owner: number for number, owner in enumerate(dict.fromkeys(owners))}
        assert sequence.document.tolist() == [order[owner] for owner in owners]
        assert all(sequence.position[at] == 0 for at in range(len(owners)) if at == 0 or owners[at] != owners[at - 1])
        place = blocks.where(index)
        assert place.startswith(f"rows:{owners[0] + 1}")
        assert place.endswith(f"rows:{owners[-1] + 1}")


def test_weights_of_documents_reach_their_tokens():
    table = table_of([[1, 2, 3], [4, 5]], scales=[1.0, 2.5])
    assert Blocks(table, 4).sequence(0).weight.tolist() == [1, 1, 1, 2.5]
    assert Blocks(table, 4).sequence(1).weight.tolist() == [2.5]


@given(rows=rows_strategy(longest=20), size=st.integers(1, 7), again=st.booleans(), data=st.data())
def test_windows_against_a_slow_form(rows, size, again, data):
    stride = data.draw(st.integers(0, size - 1))
    windows = Windows(table_of(rows), size, stride, again=again)
    slow, owner, seen = [], [], []
    for number, row in enumerate(row for row in rows if row is not None):
        start = 0
        while True:
            slow.append(row[start : start + size])
            owner.append(number)
            seen.append(stride if start else 0)
            if start + size >= len(row):
                break
            start += size - stride
    assert ids(windows) == slow
    assert windows.lengths.tolist() == [len(window) for window in slow]
    assert [windows.sample_of(index) for index in range(len(windows))] == owner
    counted: list[int] = []
    for index in range(len(windows)):
        sequence = windows.sequence(index)
        counted += sequence.ids[sequence.weight > 0].tolist()
        if again:
            assert (sequence.weight == 1).all()
        else:
            assert (sequence.weight[: seen[index]] == 0).all()
    if not again:
        assert counted == all_ids(rows)


def test_windows_equal_the_tokenizers_overflow(gpt2):
    text = "one two three four five six seven eight nine ten " * 3
    whole = gpt2(text).input_ids
    theirs = gpt2(text, truncation=True, max_length=16, stride=5, return_overflowing_tokens=True).input_ids
    assert ids(Windows(table_of([whole]), 16, 5)) == theirs


def test_settings_that_cannot_work():
    table = table_of([[1, 2, 3]])
    with pytest.raises(ConfigError, match="expected 0 to 3"):
        Windows(table, 4, 4)
    with pytest.raises(ConfigError, match="2 or more"):
        Blocks(table, 1)
    with pytest.raises(UnknownNameError, match="Did you mean `keep`"):
        Blocks(table, 2, tail="kep")
    with pytest.raises(UnknownNameError):
        fitted(table, 2, too_long="truncate")


def test_samples_that_are_too_long(caplog):
    rows = [[1, 2], [3, 4, 5, 6], [7, 8, 9]]
    table = table_of(rows)
    assert fitted(table, 4) is table
    with pytest.raises(TooLongError) as caught:
        fitted(table, 2)
    assert "2 of 3 samples are longer than 2" in str(caught.value)
    assert "sample 1 (rows:2) has 4" in str(caught.value)
    with caplog.at_level("WARNING", logger="vertebra"):
        assert ids(fitted(table, 3, too_long="drop")) == [[1, 2], [7, 8, 9]]
        assert ids(fitted(table, 3, too_long="cut")) == [[1, 2], [3, 4, 5], [7, 8, 9]]
    assert "left out 1 of 3" in caplog.text
    assert "1 positions are lost" in caplog.text
    assert ids(fitted(table, 3, too_long="windows")) == [[1, 2], [3, 4, 5], [6], [7, 8, 9]]
    with pytest.raises(TooLongError, match="nothing would be left"):
        fitted(table, 1, too_long="drop")


def test_a_conversation_is_never_cut_in_its_answer():
    user, answer = int(Role.USER), int(Role.ASSISTANT)
    rows = [[1, 2, 3, 4, 5, 6]]
    roles = [[user, user, answer, answer, user, user]]
    table = table_of(rows, role=roles, weight=[[0, 0, 1, 1, 0, 0]])
    assert ids(fitted(table, 4, too_long="cut")) == [[1, 2, 3, 4]]
    with pytest.raises(TooLongError, match=r"sample 0 \(rows:1\)"):
        fitted(table, 3, too_long="cut")
