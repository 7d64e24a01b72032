"""Ranks of a stream take equally many steps whatever packing and faults make of their shares, and stop together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.data.encode.pairs import PairEncoder
from vertebra.data.encode.prepare import prepare
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.ranks import exchange_among, filler, weightless
from vertebra.data.loaders.samplers import InOrder, Packed
from vertebra.data.loaders.stream import StreamLoader
from vertebra.data.read.labels import Labels
from vertebra.errors import DataError, VertebraError

from .streams import expected, ids, loader, ragged, rows, usable
from .test_loader import loader as held_loader
from .tokenizers import tokenizer_of


class Together:
    """Ranks as threads: `exchange(rank)` waits for all of them, as a collective does; a rank that stays away is found."""

    def __init__(self, world: int) -> None:
        self.barrier = threading.Barrier(world, timeout=20)
        self.given: list[Any] = [None] * world

    def exchange(self, rank: int) -> Callable[[Any], list[Any]]:
        def among_all(value: Any) -> list[Any]:
            self.given[rank] = json.loads(json.dumps(value))
            self.barrier.wait()
            found = list(self.given)
            self.barrier.wait()
            return found

        return among_all

    def run(self, job: Callable[[int, Callable[[Any], list[Any]]], Any]) -> list[Any]:
        """What the job gives, or the error it raises, on every rank."""
        found: list[Any] = [None] * len(self.given)

        def on(rank: int) -> None:
            try:
                found[rank] = job(rank, self.exchange(rank))
            except VertebraError as error:
                found[rank] = error

        threads = [threading.Thread(target=on, args=(rank,)) for rank in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not self.barrier.broken, "a rank waited for another"
        return found


def counted(batches) -> Counter[int]:
    """Every id that counts."""
    return Counter(int(token) for batch in batches for token in batch.input_ids[batch.weights > 0])


@settings(max_examples=40)
@given(
    count=st.integers(1, 60),
    packed=st.booleans(),
    world=st.integers(2, 4),
    block=st.integers(3, 12),
    epoch=st.integers(0, 1),
    data=st.data(),
)
def test_equally_many_steps_and_every_row_once(count, packed, world, block, epoch, data):
    together = Together(world)

    def fresh(rank: int, exchange: Any) -> StreamLoader:
        sampler = Packed(2, 7) if packed else InOrder(2)
        one = loader(ragged(count), sampler, rank=rank, world=world, block=block, exchange=exchange, on_bad="skip")
        one.set_epoch(epoch)
        return one

    made = together.run(lambda rank, exchange: list(fresh(rank, exchange)))
    if not usable(count):
        assert all("gave no sample" in str(error) for error in made)
        return
    assert len({len(batches) for batches in made}) == 1
    assert sum((counted(batches) for batches in made), Counter()) == usable(count)
    # In no step has every rank only filled its place.
    assert all(sum(float(batch.weights.sum()) for batch in step) > 0 for step in zip(*made, strict=True))

    stop = data.draw(st.integers(0, len(made[0])))

    def halves(rank: int, exchange: Any) -> list[Any]:
        first = fresh(rank, exchange)
        state = first.state_dict()
        taken = []
        for batch in first:
            if len(taken) == stop:
                break
            taken.append(batch)
            state = first.state_dict()
        second = fresh(rank, exchange)
        second.load_state_dict(json.loads(json.dumps(state)))
        return [state, taken + list(second)]

    resumed = together.run(halves)
    assert len({json.dumps(state) for state, _ in resumed}) == 1
    assert [ids(batches) for _, batches in resumed] == [ids(batches) for batches in made]
    assert [counted(batches) for _, batches in resumed] == [counted(batches) for batches in made]


def test_a_rank_whose_stream_ends_early_goes_on_with_padding():
    """Streams that a user has dealt out to the ranks, of different lengths."""
    own = [rows(30), rows(4), []]

    def job(rank: int, exchange: Any) -> list[Any]:
        # Each rank walks a source of its own: as rank 0 of 1 it takes all of it.
        return list(loader(own[rank], Packed(2, 7), rank=0, world=1, block=6, exchange=exchange))

    made = Together(3).run(job)
    assert len({len(batches) for batches in made}) == 1
    assert [counted(batches) for batches in made] == [expected(30), expected(4), Counter()]
    assert {batch.length for batch in made[2]} == {1}


def test_a_rank_that_must_stop_stops_all(jsonl):
    path = jsonl({"text": text} for text in rows(10))
    with open(path, "a") as file:
        file.write("{broken\n")

    def job(rank: int, exchange: Any) -> list[Any]:
        return list(loader(path, InOrder(2), rank=rank, world=2, block=4, exchange=exchange))

    errors = Together(2).run(job)
    assert all(isinstance(error, DataError) and f"{path}:11: malformed JSON" in str(error) for error in errors)
    assert sum("stopped, so this one does" in str(error) for error in errors) == 1


def test_what_a_rank_without_a_batch_computes():
    collator = Collator(7, multiple_of=1)
    batch = collator([[{"ids": np.array([1, 2])}], [{"ids": np.array([3])}]], [[{"label": 1}], [{"label": 0}]])
    batch["label_weights"] = torch.ones(2)
    nothing = weightless(batch)
    assert nothing["weights"].tolist() == [[0, 0], [0, 0]]
    assert nothing["label_weights"].tolist() == [0, 0]
    assert batch["weights"].sum() == 3
    assert torch.equal(filler([batch], collator)["input_ids"], batch["input_ids"])
    alone = filler([], collator)
    assert (alone["input_ids"].tolist(), alone["weights"].tolist()) == ([[7]], [[0]])


def test_labels_of_a_row_that_fills_a_place_weigh_nothing():
    tokenizer = tokenizer_of("tiny-bert")
    pairs = [{"sentence1": "a b", "sentence2": "c", "label": i % 2} for i in range(5)]
    table = prepare(pairs, PairEncoder(tokenizer, Labels(["no", "yes"])), cache=False)
    seen = [
        (batch["labels"].tolist(), batch["label_weights"].tolist())
        for rank in range(2)
        for batch in held_loader(table, InOrder(2), rank=rank, world=2, shift=False)
    ]
    assert seen == [([0, 1], [1, 1]), ([0], [0]), ([0, 1], [1, 1]), ([0], [1])]
    assert sum(sum(weights) for _, weights in seen) == len(pairs)


def test_alone_there_is_nothing_to_agree_on():
    assert exchange_among(1)("x") == ["x"]
    assert exchange_among(3)("x") == ["x"]  # no process group is up


TRAIN = """
import json, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tests.data.streams import loader, ragged
from vertebra import log
from vertebra.data.loaders.ranks import exchange_among
from vertebra.data.loaders.samplers import Packed

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Embedding(200, 1))
fed = loader(ragged(101), Packed(2, 7), rank=rank, world=2, block=20, on_bad="skip", workers=1)
counts, filled = [0] * 200, 0
for epoch in range(2):
    for batch in fed:
        scores = model(batch["input_ids"])[..., 0]
        (scores * batch["weights"]).sum().backward()  # a rank with no batch left would be waited for here
        filled += float(batch["weights"].sum()) == 0
        for token in batch["input_ids"][batch["weights"] > 0].tolist():
            counts[token] += 1
gradient = model.module.weight.grad[:, 0] * 2  # the mean over two ranks, as a sum
shown = []
log.warn_once = shown.append
assert exchange_among(3)("alone") == ["alone"] and "process group 2" in shown[0]
json.dump({"counts": counts, "gradient": gradient.tolist(), "filled": filled}, open(f"{folder}/{rank}.json", "w"))
dist.destroy_process_group()
"""


@pytest.mark.distributed
def test_two_processes_train_on_a_packed_stream(tmp_path: Path):
    """Real collectives: the gradients of all steps are the rows of both ranks, each once an epoch, and nobody waits."""
    root = Path(__file__).parents[2]
    paths = [str(root / "src"), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-W", "ignore", "-c", TRAIN, str(tmp_path)]
    started = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    reported = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], reported
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    once = [2 * usable(101)[token] for token in range(200)]
    assert [sum(both) for both in zip(*(one["counts"] for one in found), strict=True)] == once
    assert found[0]["gradient"] == found[1]["gradient"] == once
    assert sum(one["filled"] for one in found) > 0  # else this test would show nothing
