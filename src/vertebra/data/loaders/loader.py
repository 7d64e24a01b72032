"""`Loader`: samples and a sampler → batches, with workers, prefetching and pinned memory, resumed at any batch.

The position is the number of batches that the optimizer has consumed, not what workers have fetched ahead. A plan is
a pure function of seed and epoch, so the position is all there is to a state; it goes through JSON.

    loader = Loader(table, Shuffled(8), Collator(pad_id))
    for batch in loader: ...                  one epoch, from the position on
    state = loader.state_dict()               after a step; `consumed=` where batches were taken ahead of their use
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import Sampler as TorchSampler

from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.parcel import received, sent
from vertebra.data.loaders.ranks import place_among_ranks, weightless
from vertebra.data.loaders.samplers import EpochPlan, Sampler, Share
from vertebra.data.loaders.workers import begin, only_parent_ends, starting
from vertebra.data.read.rows import digest
from vertebra.data.samples.samples import Samples, Vectors, is_supervised
from vertebra.errors import ConfigError, DataError
from vertebra.sequence.batch import Batch


class Loader:
    """Batches of one rank. Iterating gives the rest of the current epoch and then moves on to the next.

    rank, world: this process among all; torchrun's by default. workers: processes that make batches ahead.
    shift: whether the loss shifts, which decides what counts as supervised (False for masked models).
    """

    def __init__(
        self,
        samples: Samples,
        sampler: Sampler,
        collator: Collator,
        *,
        rank: int | None = None,
        world: int | None = None,
        workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool | None = None,
        shift: bool = True,
    ) -> None:
        self.rank, self.world = place_among_ranks(rank, world)
        if not len(samples):
            raise DataError("no samples to load")
        if workers < 0 or prefetch < 1:
            raise ConfigError(f"{workers} workers, each {prefetch} batches ahead; expected 0 or more, and 1 or more")
        self.samples, self.sampler, self.collator = samples, sampler, collator
        self._at = _Position(samples, sampler, self.rank, self.world)
        self._maker = Maker(samples, collator, shift)
        self._options: dict[str, Any] = {
            "sampler": self._at,
            "batch_size": None,
            "collate_fn": sent,
            "num_workers": workers,
            "multiprocessing_context": starting(workers),
            "prefetch_factor": prefetch if workers else None,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available() if pin_memory is None else pin_memory,
            "worker_init_fn": only_parent_ends,
        }
        self._torch: DataLoader[Batch] | None = None

    @property
    def epoch(self) -> int:
        return self._at.epoch

    @property
    def plan(self) -> EpochPlan:
        """The plan of the current epoch."""
        return self._at.plan

    @property
    def batch_size(self) -> int:
        """Rows of a batch, on this rank."""
        return self.sampler.batch_size

    def __len__(self) -> int:
        """Batches in a whole epoch, the same on every rank."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch
        if self._torch is None:
            self._torch = DataLoader(self._maker, **self._options)
        for batch in begin(self._torch):
            self._at.batches += 1
            yield received(batch)
            if self.epoch != epoch:
                return  # somebody moved on to another epoch
        self.set_epoch(epoch + 1)

    def close(self) -> None:
        """The workers end now, once no pass is under way; the next pass starts new ones."""
        self._torch = None

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch; the position inside the present one stays where it is."""
        if epoch != self.epoch:
            self._at.epoch, self._at.batches = epoch, 0

    def state_dict(self, *, consumed: int | None = None) -> dict[str, Any]:
        """Epoch and position. `consumed`: how many batches of this epoch the optimizer has used, where that is less
        than was handed out (a trainer that looks one batch ahead, an accumulation that is not complete)."""
        batches = self._at.batches if consumed is None else consumed
        if not 0 <= batches <= len(self):
            raise ConfigError(f"{batches} batches consumed; this epoch has {len(self)}")
        epoch = self.epoch
        if batches == len(self):
            epoch, batches = epoch + 1, 0
        return {
            "epoch": epoch,
            "batches": batches,
            "rows_a_step": self.sampler.batch_size * self.world,
            "settings": self._settings(),
            "data": self.samples.fingerprint(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved position. Another number of ranks is fine while all ranks together take as many rows a step."""
        now = self.state_dict(consumed=0)
        missing = sorted(set(now) - set(state))
        if missing:
            raise ConfigError(f"the state of a loader lacks {', '.join(missing)}; save it with `state_dict()`")
        if state["data"] != now["data"]:
            raise DataError(
                "the data is not what it was when the state was saved (another file, tokenizer or option): its samples "
                "have other numbers. Restore the data, or start anew without the loader's state."
            )
        if state["settings"] != now["settings"]:
            raise ConfigError("the state was saved with another sampler, seed or capacity; make the loader as it was")
        if state["rows_a_step"] != now["rows_a_step"]:
            raise ConfigError(
                f"the state was saved with {state['rows_a_step']} rows a step over all ranks, now there are "
                f"{now['rows_a_step']} ({self.world} ranks × {self.sampler.batch_size}); choose the batch size so that "
                "the product is the same"
            )
        self._at.epoch, self._at.batches = int(state["epoch"]), int(state["batches"])

    def _settings(self) -> str:
        settings = {name: value for name, value in self.sampler.settings().items() if name != "batch_size"}
        return digest(sorted(settings.items()))


class _Position(TorchSampler[Share]):
    """Where the loader stands, and what is left of the epoch; torch asks it anew for every pass.

    It does not know the loader: in a circle with it, torch's workers would be collected in the wrong order, and each
    would be waited for five seconds.
    """

    def __init__(self, samples: Samples, sampler: Sampler, rank: int, world: int) -> None:
        self.samples, self.sampler, self.rank, self.world = samples, sampler, rank, world
        self.epoch = self.batches = 0
        self._plan: EpochPlan | None = None

    @property
    def plan(self) -> EpochPlan:
        if self._plan is None or self._plan.epoch != self.epoch:
            self._plan = self.sampler.plan(self.samples, self.epoch, self.world)
        return self._plan

    def __iter__(self) -> Iterator[Share]:
        plan = self.plan
        for step in range(self.batches, len(plan)):
            yield plan.share(step, self.rank, self.world)

    def __len__(self) -> int:
        return len(self.plan)


class Maker(Dataset[Batch]):
    """A share → its batch; what runs in the workers."""

    def __init__(self, samples: Samples, collator: Collator, shift: bool) -> None:
        self.samples, self.collator, self.shift = samples, collator, shift

    def __getitem__(self, share: Share) -> Batch:
        rows = [[self._vectors(index, share) for index in row] for row in share.rows]
        extras = [[self.samples.extra(index, share.epoch) for index in row] for row in share.rows]
        batch = self.collator(rows, extras)
        if "labels" in batch:
            batch["label_weights"] = torch.ones(len(batch["labels"]))
        return weightless(batch) if share.filler else batch

    def _vectors(self, index: int, share: Share) -> Vectors:
        vectors = self.samples.vectors(index, share.epoch)
        if share.filler:
            return vectors
        # Text that is trained on whole needs no look, be it the one token that was left over for the last block; and
        # where a sample has a label, that is what counts.
        weighed = np.ndim(vectors.get("weight", 1.0)) > 0
        if weighed and not is_supervised(vectors, shift=self.shift) and "label" not in self.samples.extra(index):
            raise DataError(
                f"sample {index} ({self.samples.where(index)}) has no supervised token: nothing can be learnt from it. "
                "Give it an answer, or leave it out."
            )
        return vectors
