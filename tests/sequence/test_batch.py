"""Collation against a plain one, its inverse, and a batch in the hands of those who move it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.errors import SequenceError, TooLongError, UnknownNameError
from vertebra.sequence.batch import Batch, collate, uncollate
from vertebra.sequence.tokens import NO_TARGET, Role, TokenSequence

from .samples import batches_of, packed

PAD = 7  # also a real token of the samples: padding must never be told by it


def plain_collate(sequences, side, multiple_of):
    """Position by position, with lists."""
    width = max(len(s) for s in sequences)
    while width % multiple_of:
        width += 1
    names = []
    for sequence in sequences:
        names += [name for name in sequence.segments if name not in names]
    empty = {
        "input_ids": PAD, "attention_mask": 0, "position_ids": 0, "targets": NO_TARGET, "weights": 0.0, "role": 0,
        "type": 0, "block": 0, "slot": [-1, -1], "document": -1,
    }  # fmt: skip
    batch = {key: [] for key in empty}
    for sequence in sequences:
        real = []
        for i in range(len(sequence)):
            segment, index = sequence.slot[i].tolist()
            real.append({
                "input_ids": int(sequence.ids[i]), "attention_mask": 1, "position_ids": int(sequence.position[i]),
                "targets": int(sequence.target[i]), "weights": float(sequence.weight[i]),
                "role": int(sequence.role[i]), "type": int(sequence.type[i]), "block": int(sequence.block[i]),
                "slot": [names.index(sequence.segments[segment]) if segment >= 0 else -1, index],
                "document": int(sequence.document[i]),
            })  # fmt: skip
        padding = [empty] * (width - len(real))
        row = real + padding if side == "right" else padding + real
        for key in batch:
            batch[key].append([position[key] for position in row])
    return batch, tuple(names)


@settings(max_examples=40, deadline=None)
@given(batches_of(packed()), st.sampled_from(["right", "left"]), st.sampled_from([1, 2, 8]))
def test_collate_is_the_plain_one(sequences, side, multiple_of):
    batch = collate(sequences, pad_id=PAD, side=side, multiple_of=multiple_of)
    expected, names = plain_collate(sequences, side, multiple_of)
    assert batch.segments == names
    for key, value in expected.items():
        assert batch[key].tolist() == value, key
    # long where torch indexes with it
    kinds = {
        "weights": torch.float32,
        "role": torch.int8,
        **dict.fromkeys(["type", "block", "slot", "document"], torch.int32),
    }
    assert {key: batch[key].dtype for key in expected} == {key: kinds.get(key, torch.int64) for key in expected}


@settings(max_examples=40, deadline=None)
@given(batches_of(packed()), st.sampled_from(["right", "left"]))
def test_uncollate_is_the_inverse(sequences, side):
    batch = collate(sequences, pad_id=PAD, side=side, multiple_of=4)
    assert uncollate(batch) == sequences
    again = collate(uncollate(batch), pad_id=PAD, side=side, multiple_of=4)
    assert all(torch.equal(again[key], batch[key]) for key in batch if isinstance(batch[key], torch.Tensor))


@settings(max_examples=30, deadline=None)
@given(batches_of(packed()), st.data())
def test_select_takes_rows_with_what_is_theirs(sequences, data):
    # an item for every slot, telling which row it is of
    features = [
        {name: np.full((s.slot_count(name), 2), row, np.float32) for name in s.segments}
        for row, s in enumerate(sequences)
    ]
    batch = collate(sequences, features, pad_id=PAD)
    rows = data.draw(st.lists(st.integers(0, len(sequences) - 1), min_size=1, max_size=5))
    chosen = batch.select(rows)
    expected = collate([sequences[r] for r in rows], [features[r] for r in rows], pad_id=PAD)
    assert uncollate(chosen) == uncollate(expected)
    for name, block in expected.features.items():
        assert torch.equal(chosen.features[name]["values"], block["values"])
        assert torch.equal(chosen.features[name]["rows"], block["rows"])


def test_the_original_is_not_shared():
    sequence = TokenSequence.of([1, 2, 3])
    batch = collate([sequence], pad_id=0)
    batch.input_ids[0, 0] = 9
    assert sequence.ids[0] == 1


def batch_with_image() -> Batch:
    one = TokenSequence.of([1, 3, 3, 5], slot=[(-1, -1), (0, 0), (0, 1), (-1, -1)], segments=["image"], weight=0)
    return collate([one, TokenSequence.of([4, 5], weight=1.0)], [{"image": np.ones((1, 3), "f4")}, {}], pad_id=0)


def test_keys_are_attributes():
    batch = batch_with_image()
    assert (batch.rows, batch.length, batch.device.type) == (2, 4, "cpu")
    assert batch.input_ids is batch["input_ids"]
    with pytest.raises(AttributeError, match="`targets`"):
        _ = batch.target
    assert not hasattr(batch, "anything")


def test_moves_and_copies_keep_the_kind():
    batch = batch_with_image()
    for moved in (batch.to("cpu"), pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch), batch.to("meta")):
        assert type(moved) is Batch
        assert set(moved) == set(batch)
    assert batch.to("meta").features["image"]["rows"].device.type == "meta"


def test_a_data_loader_pins_every_tensor(monkeypatch):
    """Through torch's own function; what pinning does to one tensor needs a device, so that part is replaced."""
    from torch.utils.data._utils.pin_memory import pin_memory

    pinned: list[int] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(id(tensor)) or tensor)
    batch = batch_with_image()
    assert type(pin_memory(batch)) is Batch
    tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
    assert {*map(id, tensors), *map(id, batch.features["image"].values())} == set(pinned)


def test_a_data_loader_with_workers():
    samples = [TokenSequence.of([i, i + 1]) for i in range(4)]
    loader = torch.utils.data.DataLoader(samples, batch_size=2, collate_fn=_collate, num_workers=1)
    assert [batch.input_ids.tolist() for batch in loader] == [[[0, 1], [1, 2]], [[2, 3], [3, 4]]]


def _collate(sequences):
    return collate(sequences, pad_id=0)


def test_the_trainer_and_accelerate_move_it(tmp_path):
    from accelerate.utils import send_to_device
    from transformers import Trainer, TrainingArguments

    batch = batch_with_image()
    moved = send_to_device(batch, torch.device("cpu"))
    trainer = Trainer(torch.nn.Linear(1, 1), TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]))
    for other in (moved, trainer._prepare_inputs(batch)):
        assert type(other) is Batch
        assert other.segments == ("image",)
        assert torch.equal(other.features["image"]["values"], batch.features["image"]["values"])


@settings(max_examples=25, deadline=None)
@given(batches_of(packed()), st.sampled_from(["right", "left"]), st.integers(1, 3))
def test_append_continues_every_row(sequences, side, count):
    batch = collate(sequences, pad_id=PAD, side=side)
    ids = torch.arange(batch.rows * count).reshape(batch.rows, count)
    longer = batch.append(ids)
    for before, after, new in zip(sequences, uncollate(longer), ids.tolist(), strict=True):
        assert after.cut(0, len(before)) == before
        tail = after.cut(len(before))
        assert tail.ids.tolist() == new
        assert tail.position.tolist() == [int(before.position[-1]) + 1 + k for k in range(count)]
        assert set(tail.document.tolist()) == {int(before.document[-1])}
        assert tail.supervised == 0
        assert set(tail.role.tolist()) == {Role.ASSISTANT}


def test_rounding_up_stops_at_the_limit():
    sequence = TokenSequence.of(range(10))
    assert collate([sequence], pad_id=0, multiple_of=8).length == 16
    assert collate([sequence], pad_id=0, multiple_of=8, max_length=12).length == 12


def test_too_long_counts_tokens_and_slots_of_every_row():
    picture = [(0, i) for i in range(4)] + [(1, 0)] + [(-1, -1)] * 3
    long = TokenSequence.of(range(8), slot=picture, segments=["image", "action"])
    with pytest.raises(TooLongError) as caught:
        collate([long, TokenSequence.of([1]), TokenSequence.of(range(6))], pad_id=0, max_length=5)
    message = str(caught.value)
    assert "sequence 0 has 8 positions (3 tokens, 4 slots of image, 1 slots of action), 3 more" in message
    assert "sequence 2 has 6 positions (6 tokens), 1 more" in message
    assert "sequence 1" not in message
    assert "too_long" in message


@pytest.mark.parametrize(
    ("sequences", "options", "error", "says"),
    [
        ([], {}, SequenceError, "no sequences"),
        ([TokenSequence.of([1]), TokenSequence.of([])], {}, SequenceError, "without a single position: 1"),
        ([TokenSequence.of([1])], {"side": "rihgt"}, UnknownNameError, "Did you mean `right`"),
        ([TokenSequence.of([1])], {"pad_id": None}, SequenceError, "pad_id is None"),
        ([TokenSequence.of([1])], {"pad_id": -1}, SequenceError, "pad_id is -1"),
        ([TokenSequence.of([1])], {"multiple_of": 0}, SequenceError, "multiple_of is 0"),
        ([TokenSequence.of([1], weight=float("nan"))], {}, SequenceError, "row 0, column 0: weight nan"),
        ([TokenSequence.of([1], weight=-1.0)], {}, SequenceError, "weight -1.0"),
        ([TokenSequence.of([1], target=[NO_TARGET], weight=1.0)], {}, SequenceError, "needs a target"),
    ],
)
def test_what_cannot_be_collated(sequences, options, error, says):
    with pytest.raises(error, match=says):
        collate(sequences, **{"pad_id": 0, **options})


def test_wrong_rows_and_ids():
    batch = batch_with_image()
    with pytest.raises(SequenceError, match=r"rows \[5\]"):
        batch.select([0, 5])
    with pytest.raises(SequenceError, match=r"expected \[2, n\]"):
        batch.append(torch.zeros(3, 1))
    assert batch.select(torch.tensor([False, True])).rows == 1


def test_rows_that_are_no_sequences_and_features_that_are_not_by_row():
    with pytest.raises(SequenceError, match="rows are list"):
        collate([[1, 2]], pad_id=0)
    row = TokenSequence.of([1, 2], slot=[[0, 0], [-1, -1]], segments=("image",))
    with pytest.raises(SequenceError, match="one mapping for all rows"):
        collate([row], {"image": [[1.0]]}, pad_id=0)
