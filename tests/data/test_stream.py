"""The stream loader: every row once over ranks and workers, independent of workers, resumed at any batch, flat memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.data.encode.encoders import TextEncoder
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.samplers import InOrder, Packed, Shuffled
from vertebra.data.loaders.stream import StreamLoader
from vertebra.data.read.formats import Reader
from vertebra.data.samples.causal import Blocks
from vertebra.data.samples.mixture import Mixture
from vertebra.errors import ConfigError, DataError
from vertebra.training.feed import Feed

from .streams import SAMPLERS, expected, ids, loader, rows, tokens
from .tokenizers import tokenizer_of


@settings(max_examples=50)
@given(
    count=st.integers(1, 40),
    name=st.sampled_from(list(SAMPLERS)),
    size=st.integers(1, 3),
    world=st.integers(1, 3),
    block=st.integers(3, 12),
    epoch=st.integers(0, 2),
    mixed=st.booleans(),
)
def test_all_ranks_together_are_the_source_every_epoch(count, name, size, world, block, epoch, mixed):
    data = rows(count)
    if mixed and count > 1:
        data = Mixture({"a": data[: count // 2], "b": (lambda: iter(data_b))}, [1, 2])
        data_b = rows(count)[count // 2 :]
    seen: Counter[int] = Counter()
    for rank in range(world):
        one = loader(data, SAMPLERS[name](size), rank=rank, world=world, block=block)
        one.set_epoch(epoch)
        if rank < min(count, world):
            seen += tokens(one)
    assert seen == expected(count)


@settings(max_examples=40)
@given(count=st.integers(5, 40), name=st.sampled_from(list(SAMPLERS)), block=st.integers(3, 12), data=st.data())
def test_resume_at_any_batch(count, name, block, data):
    def fresh() -> StreamLoader:
        return loader(rows(count), SAMPLERS[name](2), block=block, seed=1)

    whole = fresh()
    first_epoch, second_epoch = ids(whole), ids(whole)
    stop = data.draw(st.integers(0, len(first_epoch)))
    first = fresh()
    state = first.state_dict()
    for number, _ in enumerate(first, 1):
        if number == stop:
            state = first.state_dict()
            break
    second = fresh()
    second.load_state_dict(json.loads(json.dumps(state)))
    assert ids(second) == first_epoch[stop:]
    assert ids(second) == second_epoch
    third = fresh()
    for _ in third:
        if third.state_dict()["batches"] == len(first_epoch):
            break
    fourth = fresh()
    fourth.load_state_dict(third.state_dict(consumed=stop))
    assert ids(fourth) == first_epoch[stop:]


def test_a_trainers_feed_resumes_at_any_batch():
    """Also behind the last batch of an epoch, where the stream does not yet know that it has ended."""

    def fresh() -> Feed:
        return Feed(loader(rows(30), Packed(2, 7), block=6), steps=12, accumulate=2)

    whole = ids(fresh())
    length = len(ids(fresh().loader))
    for taken in (0, 3, length - 1, length, length + 1, 2 * length, len(whole)):
        first = fresh()
        states = [first.state_dict(), *(first.state_dict() for _ in first)]
        second = fresh()
        second.load_state_dict(json.loads(json.dumps(states[taken])))
        assert ids(second) == whole[taken:]
    with pytest.raises(DataError, match="gave no sample"):
        list(Feed(loader(lambda: iter([]), InOrder(1)), steps=1, accumulate=1))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers, jsonl):
    path = jsonl({"text": text} for text in rows(50))
    plain = loader(path, Packed(2, 7), block=8)
    busy = loader(path, Packed(2, 7), block=8, workers=workers)
    assert ids(busy) == ids(plain)
    assert ids(busy) == ids(plain)
    for number, _ in enumerate(busy):
        if number == 4:
            break
    state = busy.state_dict(consumed=3)
    plain.load_state_dict(state)
    resumed = loader(path, Packed(2, 7), block=8, workers=2)
    resumed.load_state_dict(state)
    assert ids(resumed) == ids(plain)


def test_ranks_times_workers_are_the_mixture_every_epoch(jsonl):
    """Two ranks of two workers each, on a mixture of a file and a list: each row once, in every epoch, in a new order."""
    path = jsonl({"text": text} for text in rows(60)[:40])

    def ranks(workers: int) -> list[StreamLoader]:
        mixed = Mixture({"file": path, "list": rows(60)[40:]}, [1, 2], seed=3)
        return [loader(mixed, Packed(2, 7), rank=rank, world=2, block=6, workers=workers) for rank in range(2)]

    plain, busy = ranks(0), ranks(2)
    epochs = []
    for _ in range(2):
        epochs.append([ids(one) for one in busy])
        assert epochs[-1] == [ids(one) for one in plain]
        assert Counter(t for rank in epochs[-1] for batch in rank for row in batch for t in row) == expected(60)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_dataset_is_not_dealt_out_twice(workers):
    """Inside torch's workers such a dataset hands each its own shards; here the blocks are what is dealt out."""
    held = datasets.Dataset.from_list([{"text": text} for text in rows(50)])
    streamed = held.to_iterable_dataset(num_shards=3)
    assert tokens(loader(streamed, InOrder(2), block=8, workers=workers)) == expected(50)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of two cores torch says so
def test_more_workers_than_blocks():
    assert tokens(loader(rows(5), InOrder(1), block=4, workers=4)) == expected(5)


def test_epochs_differ_and_order_can_be_kept():
    shuffled = loader(rows(30), Shuffled(2), block=8)
    assert ids(shuffled) != ids(shuffled)
    plain = loader(rows(30), InOrder(1), block=8, shuffle=False)
    assert [row[0][0] for row in ids(plain)] == list(range(30))


def test_a_view_cuts_blocks(gpt2):
    texts = [f"some text number {i}" for i in range(40)]
    made = StreamLoader(
        texts,
        TextEncoder(gpt2),
        Shuffled(2),
        Collator(0, multiple_of=1),
        view=lambda table: Blocks(table, 16),
        block=20,
        pin_memory=False,
    )
    batches = list(made)
    assert max(batch.length for batch in batches) == 16
    assert sum(map(len, (row for batch in ids(batches) for row in batch))) == sum(
        len(gpt2(text).input_ids) + 1 for text in texts
    )


def test_faults_stop_or_are_counted(jsonl):
    path = jsonl([{"text": text} for text in rows(10)])
    with open(path, "a") as file:
        file.write("{broken\n")
    for workers in (0, 1):
        with pytest.raises(DataError, match=rf"{path}:11: malformed JSON"):
            list(loader(path, InOrder(2), block=4, workers=workers))
        made = loader(path, InOrder(2), block=4, workers=workers, on_bad="skip")
        assert tokens(made) == expected(10)
        assert made.faults.count == 1


def test_streams_that_end_early(jsonl):
    path = jsonl([{"text": text} for text in rows(30)])
    one = loader(path, InOrder(2), block=4)
    taken = [batch for _, batch in zip(range(11), one, strict=False)]
    assert len(taken) == 11
    state = one.state_dict()
    for left in (8, 20):
        jsonl([{"text": text} for text in rows(left)])
        shorter = loader(path, InOrder(2), block=4)
        shorter.load_state_dict(state)
        with pytest.raises(DataError, match="become shorter"):
            list(shorter)
    once = loader(iter(rows(6)), InOrder(2), block=4)
    assert tokens(once) == expected(6)
    with pytest.raises(DataError, match="already read"):
        list(once)
    with pytest.raises(DataError, match="gave no sample"):
        list(loader(lambda: iter([]), InOrder(1)))
    with pytest.raises(ConfigError, match="cannot share one iterator"):
        loader(iter(rows(6)), InOrder(2), workers=2)


def test_settings_that_cannot_work():
    with pytest.raises(ConfigError, match="smaller than a batch"):
        loader(rows(5), InOrder(8), block=4)
    one = loader(rows(9), InOrder(2))
    with pytest.raises(ConfigError, match="other settings"):
        loader(rows(9), InOrder(3)).load_state_dict(one.state_dict())
    with pytest.raises(ConfigError, match="were handed out"):
        one.state_dict(consumed=1)


def test_formats_are_read(jsonl):
    path = jsonl([{"body": text} for text in rows(4)])
    assert tokens(loader(path, InOrder(2), reader=Reader(columns={"text": "body"}))) == expected(4)


FLAT = """
import resource, sys
from tests.data.streams import Numbers
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.samplers import Packed
from vertebra.data.loaders.stream import StreamLoader
loader = StreamLoader(sys.argv[1], Numbers(), Packed(8, 64), Collator(0), block=64, rank=0, world=40, pin_memory=False)
peaks = []
for number, batch in enumerate(loader):
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[len(peaks) // 5], peaks[-1])
"""


def test_memory_stays_flat(tmp_path):
    """From a fifth of a 60 MB file to its end the process grows by less than a tenth of the file."""
    path = tmp_path / "large.jsonl"
    row = json.dumps({"text": "7 " * 1200}) + "\n"
    path.write_text(row * 25_000)
    paths = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    code = FLAT.replace("Packed(8, 64)", "Packed(8, 1200)")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=environment)
    early, late = map(int, done.stdout.split())
    assert late - early < 6 * 1024, done.stderr


def test_it_works_with_a_real_tokenizer(jsonl):
    tokenizer = tokenizer_of("tiny-llama2")
    path = jsonl([{"text": f"row {i}"} for i in range(12)])
    made = StreamLoader(path, TextEncoder(tokenizer), Packed(2, 32), Collator(0), block=6, pin_memory=False)
    whole = Counter(token for i in range(12) for token in [*tokenizer(f"row {i}").input_ids, tokenizer.eos_token_id])
    assert tokens(made) == whole
