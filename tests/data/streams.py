"""Streams whose ids say which row they come from; light to import, for the processes that tests start."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from vertebra.data.encode.encoders import Encoder, PlacedSample
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.samplers import InOrder, LengthGrouped, Packed, Shuffled
from vertebra.data.loaders.stream import StreamLoader
from vertebra.data.read.formats import Text
from vertebra.data.read.rows import Fault
from vertebra.data.samples.table import ChunkBuilder


class Numbers(Encoder):
    """`17 17 17` → [17, 17, 17]: ids that say which row they come from."""

    name = "numbers"
    takes = (Text,)
    columns = ("ids",)

    def __init__(self) -> None:
        pass

    def options(self):
        return {}

    def encode(self, batch):
        made = ChunkBuilder(self.columns)
        for one in batch:
            if isinstance(one, Fault):
                made.fault(one)
                continue
            assert isinstance(one, PlacedSample)
            made.place(one.file, one.line)
            made.vectors({"ids": np.array([int(word) for word in one.sample.text.split()], np.int32)})
        return made.built()


def rows(count: int) -> list[str]:
    return [" ".join([str(i)] * (1 + i % 5)) for i in range(count)]


SAMPLERS = {"in order": InOrder, "shuffled": Shuffled, "grouped": LengthGrouped, "packed": lambda size: Packed(size, 7)}


def loader(data, sampler, **options) -> StreamLoader:
    return StreamLoader(data, Numbers(), sampler, Collator(0, multiple_of=1), pin_memory=False, shift=False, **options)


def ids(batches) -> list[list[list[int]]]:
    return [[row[mask == 1].tolist() for row, mask in zip(b.input_ids, b.attention_mask, strict=True)] for b in batches]


def tokens(batches) -> Counter[int]:
    return Counter(token for batch in ids(batches) for row in batch for token in row)


def expected(count: int) -> Counter[int]:
    return Counter(int(word) for row in rows(count) for word in row.split())


def ragged(count: int) -> list[dict[str, Any]]:
    """Rows of lengths that pack differently; every seventh cannot be used."""
    return [{"text": text} if i % 7 else {"txt": text} for i, text in enumerate(rows(count), 1)]


def usable(count: int) -> Counter[int]:
    return Counter(int(word) for row in ragged(count) for word in row.get("text", "").split())
