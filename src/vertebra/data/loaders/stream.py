"""`StreamLoader`: a source of any size → batches, in bounded memory, resumed at any batch.

The stream is cut into blocks of units. A block is made whole by one worker: read, shuffled, shared out among the ranks,
encoded, packed or grouped, collated. So the order of the batches depends neither on the number of workers nor on what
they have fetched ahead, and the state is a block's number and a batch inside it.

    units    0 … K·W │ K·W … 2·K·W │ …          K rows for each of W ranks
    block        0   │      1      │            rank r takes every W-th of the shuffled block
    worker       0   │      1      │  0 …       of this rank

Packing, and rows that are left out, may make more batches of one rank's share than of another's. So before a block is
handed out the ranks tell each other how many they have, and all hand out as many as the one with the most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from vertebra import log
from vertebra.data.encode.encoders import Encoder, PlacedSample
from vertebra.data.encode.tokens import one_thread_in_this_process
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Maker
from vertebra.data.loaders.parcel import received, sent
from vertebra.data.loaders.ranks import Exchange, exchange_among, filler, place_among_ranks
from vertebra.data.loaders.samplers import EpochPlan, Sampler
from vertebra.data.loaders.workers import begin, only_parent_ends, starting
from vertebra.data.read.formats import Reader
from vertebra.data.read.open import open_source
from vertebra.data.read.rows import Fault, Faults, OnBad, Raw, Row, Source, digest
from vertebra.data.read.tables import Stream
from vertebra.data.samples.samples import Samples
from vertebra.data.samples.table import Table
from vertebra.errors import ConfigError, DataError, VertebraError
from vertebra.sequence.batch import Batch

BLOCK = 1024
"""Units of a block, for each rank: what is shuffled together, and packed together."""


class Block(NamedTuple):
    """What a worker makes of one block."""

    number: int
    batches: list[Batch]
    faults: list[Fault]


class StreamLoader:
    """Batches of one rank from a stream: a file too large to hold, a streamed dataset, a `Mixture`.

    view: what the samples of a block become before they are batched (`lambda table: Blocks(table, 512)`).
    on_bad: an unusable row stops the run (`fail`), or is left out and counted (`skip`).

    exchange: how ranks agree (see `ranks`); through the process group where one of this many ranks is up. A rank
    with fewer batches in a block than another repeats its last one with weight 0, so that all take equally many steps.
    All ranks must iterate: one that evaluates alone gives `rank=0, world=1`.
    """

    def __init__(
        self,
        data: Any,
        encoder: Encoder,
        sampler: Sampler,
        collator: Collator,
        *,
        view: Callable[[Table], Samples] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        block: int = BLOCK,
        reader: Reader | None = None,
        on_bad: OnBad = "fail",
        rank: int | None = None,
        world: int | None = None,
        exchange: Exchange | None = None,
        workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool | None = None,
        shift: bool = True,
    ) -> None:
        if block < sampler.batch_size:
            raise ConfigError(f"blocks of {block} rows are smaller than a batch of {sampler.batch_size}")
        self.rank, self.world = place_among_ranks(rank, world)
        self.exchange = exchange
        self.source = open_source(data)
        if workers and isinstance(self.source, Stream) and not callable(self.source.make):
            raise ConfigError(
                f"{workers} workers cannot share one iterator: each has to walk the rows. Pass a function that returns "
                "a new iterator, or use workers=0"
            )
        self.reader = reader or Reader()
        if workers:
            self.reader.settle(self.source)
        self.faults = Faults(on_bad)
        """The rows that were left out so far."""
        settings = {"shuffle": shuffle, "seed": seed, "block": block, "batch": sampler.batch_size, "world": self.world}
        self._settings = digest(sorted((settings | sampler.settings()).items()), encoder.name, encoder.options())
        self._blocks = _Blocks(
            self.source,
            encoder,
            self.reader,
            sampler,
            collator,
            view,
            (self.rank, self.world),
            shuffle,
            seed,
            block,
            shift,
        )
        self._options: dict[str, Any] = {
            "collate_fn": sent,
            "num_workers": workers,
            "multiprocessing_context": starting(workers),
            "prefetch_factor": prefetch if workers else None,
            "pin_memory": torch.cuda.is_available() if pin_memory is None else pin_memory,
            "worker_init_fn": only_parent_ends,
        }
        self.epoch = 0
        self._start = (0, 0)
        self._batches = 0
        self._firsts: list[tuple[int, int]] = [(0, 0)]
        """(its first batch, its number) of every block of this epoch that was met."""

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the current epoch; after its last batch the next epoch begins.

        Resumed behind its last batch it gives nothing, and goes on to the next: only looking finds a stream's end.
        """
        epoch = self.epoch
        first, skipped = self._start
        made = self._batches - skipped
        self._firsts = [(made, first)]
        met = False
        for number, batches in enumerate(self._agreed(epoch, first), first):
            met = True
            if number > first:
                self._firsts.append((made, number))
            elif len(batches) < skipped:
                break  # and be reported below
            for inside, batch in enumerate(batches):
                made += 1
                if number == first and inside < skipped:
                    continue
                self._batches, self._start = made, (number, inside + 1)
                yield batch
                if self.epoch != epoch:
                    return
        if made < self._batches or (first and not met):
            raise DataError(
                f"{self.source.name} ended at batch {made} of epoch {epoch}, but {self._batches} were taken from it "
                "before: the data has become shorter since the state was saved"
            )
        if not made:
            raise DataError(f"{self.source.name} gave no sample in epoch {epoch}: it is empty, or was read before")
        self.set_epoch(epoch + 1)

    def close(self) -> None:
        """Nothing stays: the workers live as long as a pass, since a stream of another epoch begins anew."""

    def _agreed(self, epoch: int, first: int) -> Iterator[list[Batch]]:
        """Each block's batches, as many on every rank, until the last rank's stream has ended.

        A rank that must stop says so before it does: the others would wait for it in their next step.
        """
        self._blocks.epoch, self._blocks.first = epoch, first
        blocks = begin(DataLoader(self._blocks, batch_size=None, **self._options))
        exchange = self.exchange or exchange_among(self.world)
        while True:
            block = stopped = None
            try:
                block = received(next(blocks, None))
                if block is not None:
                    self._note_faults(block)
            except VertebraError as error:
                stopped = error
            reports = exchange((None if block is None else len(block.batches), stopped and str(stopped)))
            if stopped is not None:
                raise stopped
            for rank, (_, why) in enumerate(reports):
                if why:
                    raise DataError(f"rank {rank} stopped, so this one does: {why}")
            counts = [count for count, _ in reports if count is not None]
            if not counts:
                return
            own = [] if block is None else block.batches
            missing = max(counts) - len(own)
            yield own + [filler(own, self._blocks.collator)] * missing if missing else own

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch; the position inside the present one stays where it is."""
        if epoch != self.epoch:
            self.epoch, self._start, self._batches = epoch, (0, 0), 0
            self._firsts = [(0, 0)]

    def state_dict(self, *, consumed: int | None = None) -> dict[str, Any]:
        """Epoch and position. `consumed`: how many batches of this epoch the optimizer has used, where fewer than
        were handed out."""
        batches = self._batches if consumed is None else consumed
        if not 0 <= batches <= self._batches:
            raise ConfigError(f"{batches} batches consumed; {self._batches} were handed out in this epoch")
        first, block = next(known for known in reversed(self._firsts) if known[0] <= batches)
        return {
            "epoch": self.epoch,
            "batches": batches,
            "block": block,
            "inside": batches - first,
            "settings": self._settings,
            "source": self.source.name,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("settings") != self._settings:
            raise ConfigError(
                "the state was saved by a stream of other settings (batch size, ranks, block, seed, sampler, encoder); "
                "its blocks hold other rows. Make the loader as it was."
            )
        self.epoch, self._batches = int(state["epoch"]), int(state["batches"])
        self._start = (int(state["block"]), int(state["inside"]))
        self._firsts = [(self._batches - self._start[1], self._start[0])]

    def _note_faults(self, block: Block) -> None:
        for fault in block.faults:
            self.faults.add(fault)
        if block.faults and self.faults.on_bad == "fail":
            raise DataError(
                self.faults.report(self.source.name)
                + "\nThe stream was not read to its end: `vertebra data check` lists all such rows."
            )
        if block.faults:
            log.warn_once(f"{self.source.name}: rows that cannot be used are left out; `faults` counts them")


class _Blocks(IterableDataset[Block]):
    """Makes the blocks of this worker: every n-th from the first on."""

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        reader: Reader,
        sampler: Sampler,
        collator: Collator,
        view: Callable[[Table], Samples] | None,
        place: tuple[int, int],
        shuffle: bool,
        seed: int,
        size: int,
        shift: bool,
    ) -> None:
        self.source, self.encoder, self.reader, self.sampler, self.collator = source, encoder, reader, sampler, collator
        self.view, self.shuffle, self.seed, self.size, self.shift = view, shuffle, seed, size, shift
        self.rank, self.world = place
        self.epoch = self.first = 0

    def __iter__(self) -> Iterator[Block]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if info:
            one_thread_in_this_process()
        walk = self.source.at_epoch(self.epoch, seed=self.seed, shuffle=self.shuffle)
        units = self.size * self.world
        number = self.first + worker
        raws = walk.raw(number * units)
        while block := list(islice(raws, units)):
            yield self._made(walk, number, block)
            number += workers
            for _ in islice(raws, units * (workers - 1)):  # the other workers' blocks
                pass

    def _made(self, walk: Source, number: int, block: list[Raw]) -> Block:
        order = np.arange(len(block))
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch, number, 11]).permutation(len(block))
        mine = [block[index] for index in order[self.rank :: self.world]]
        placed = [one for raw in mine if (one := self._placed(walk, raw)) is not None]
        if not placed:
            return Block(number, [], [])
        table = Table([self.encoder.encode(placed)], meta={"fingerprint": ""})
        if not len(table):
            return Block(number, [], table.faults)
        samples = table if self.view is None else self.view(table)
        plan = self.sampler.plan(samples, self.epoch)
        # Even batches: a last one of a single row would weigh its tokens too much.
        rows = len(plan.rows) - 1
        count = -(-rows // self.sampler.batch_size)
        edges = np.array([rows * step // count for step in range(count + 1)])
        plan = EpochPlan(self.epoch, plan.members, plan.rows, edges)
        maker = Maker(samples, self.collator, self.shift)
        return Block(number, [maker[plan.share(step, 0, 1)] for step in range(count)], table.faults)

    def _placed(self, walk: Source, raw: Raw) -> PlacedSample | Fault | None:
        row = walk.parse(raw)
        if not isinstance(row, Row):
            return row
        sample = self.reader(row)
        if sample is None or isinstance(sample, Fault):
            return sample
        return PlacedSample(row.file, row.line, sample, row.item)
