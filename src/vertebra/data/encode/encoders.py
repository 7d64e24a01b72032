"""`Encoder`: samples of one kind → vectors; and the plain one, text → ids.

An encoder is what a cache is keyed by: its `options` name everything that changes its output. It takes a batch of
samples with their places and gives a chunk of a table. A sample that it cannot say becomes a fault of its row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from vertebra.data.encode.tokens import TextTokenizer, framed, stop_id
from vertebra.data.read.formats import Pair, Sample, Text
from vertebra.data.read.rows import Fault
from vertebra.data.samples.table import ChunkBuilder, RowChunk
from vertebra.errors import VertebraError
from vertebra.sequence.tokens import TokenSequence


class PlacedSample(NamedTuple):
    """A sample and where it comes from."""

    file: str
    line: int
    sample: Sample
    item: int = 0

    def fault(self, message: str) -> Fault:
        """That no text can be made of it."""
        return Fault(self.file, self.line, message, self.item)


class Encoder(ABC):
    """Samples → a chunk of a table."""

    name: ClassVar[str]

    def __init__(self, tokenizer: Any) -> None:
        self.tokens = TextTokenizer(tokenizer)

    @property
    def tokenizer(self) -> Any:
        return self.tokens.tokenizer

    @property
    @abstractmethod
    def takes(self) -> tuple[type, ...]:
        """The kinds of sample that it can say."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The vectors it makes."""

    @abstractmethod
    def options(self) -> Mapping[str, Any]:
        """Everything that changes its output, the tokenizer apart; plain values, for the key of the cache."""

    @abstractmethod
    def encode(self, batch: Sequence[PlacedSample | Fault]) -> RowChunk: ...

    def refuse(self, placed: PlacedSample) -> Fault | None:
        """The fault of a sample of another kind."""
        if isinstance(placed.sample, self.takes):
            return None
        expected = " or ".join(kind.__name__.lower() for kind in self.takes)
        got = type(placed.sample).__name__.lower()
        hint = "; pairs with a class train an encoder: kind `pairs`" if isinstance(placed.sample, Pair) else ""
        return placed.fault(f"wrong kind of sample: {self.name} takes {expected}, this row is a {got}{hint}")


class TextEncoder(Encoder):
    """Plain text: what the tokenizer puts before a text (BOS, if that is its habit), the text, the stop token.

    bos: whether to keep what the tokenizer puts in front. stop: the token that ends a text, its EOS by default;
    an empty string for none.
    """

    name = "text"

    def __init__(self, tokenizer: Any, *, bos: bool = True, stop: str | None = None) -> None:
        super().__init__(tokenizer)
        self.bos = bos
        self.stop = () if stop == "" else (stop_id(tokenizer, stop),)

    @property
    def takes(self) -> tuple[type, ...]:
        return (Text,)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("ids",)

    def options(self) -> Mapping[str, Any]:
        return {"bos": self.bos, "stop": list(self.stop)}

    def encode(self, batch: Sequence[PlacedSample | Fault]) -> RowChunk:
        made, texts = place_texts(self, batch)
        flat = framed(self.tokens(texts), self.tokens.prefix if self.bos else (), self.stop)
        return made.built(flat.lengths, {"ids": flat.values})


class WordEncoder(Encoder):
    """Plain text for masking: no special tokens at all, and the word behind each token."""

    name = "words"

    @property
    def takes(self) -> tuple[type, ...]:
        return (Text,)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("ids", "word")

    def options(self) -> Mapping[str, Any]:
        return {}

    def encode(self, batch: Sequence[PlacedSample | Fault]) -> RowChunk:
        made, texts = place_texts(self, batch)
        flat, words = self.tokens.with_words(texts)
        return made.built(flat.lengths, {"ids": flat.values, "word": words})


class SequenceEncoder(Encoder):
    """Samples that a function writes as token sequences, one by one. Where it raises one of our errors, that is the fault
    of its row.

    key: what a cache knows the function by; its own source, say. slots: whether its sequences may have some.
    """

    name = "sequences"

    def __init__(
        self,
        tokenizer: Any,
        write: Callable[[Any], TokenSequence],
        *,
        takes: tuple[type, ...],
        key: str,
        slots: bool = False,
    ) -> None:
        super().__init__(tokenizer)
        self.write, self.key, self.slots, self._takes = write, key, slots, takes

    @property
    def takes(self) -> tuple[type, ...]:
        return self._takes

    @property
    def columns(self) -> tuple[str, ...]:
        plain = ("ids", "target", "weight", "role", "type", "block")
        return (*plain, "slot") if self.slots else plain

    def options(self) -> Mapping[str, Any]:
        return {"key": self.key, "slots": self.slots}

    def encode(self, batch: Sequence[PlacedSample | Fault]) -> RowChunk:
        made = ChunkBuilder(self.columns)
        for one in batch:
            fault = one if isinstance(one, Fault) else self.refuse(one)
            if fault is not None:
                made.fault(fault)
                continue
            assert isinstance(one, PlacedSample)
            try:
                place_sequence(made, one, self.write(one.sample))
            except VertebraError as error:
                made.fault(one.fault(str(error)))
        return made.built()


def place_sequence(made: ChunkBuilder, one: PlacedSample, sequence: TokenSequence) -> None:
    """A row's sequence, with its images where it has some; one that teaches nothing is a fault."""
    if not (sequence.weight[1:] > 0).any():
        made.fault(one.fault("no supervised token: nothing of it weighs anything in the loss"))
        return
    extra: dict[str, Any] = {"segments": sequence.segments} if sequence.segments else {}
    if getattr(one.sample, "images", ()):
        extra["images"] = one.sample.images  # type: ignore[union-attr]
    made.place(one.file, one.line, item=one.item, scale=getattr(one.sample, "weight", 1.0), extra=extra)
    made.vectors({name: np.asarray(getattr(sequence, name)) for name in made.columns})


def place_texts(encoder: Encoder, batch: Sequence[PlacedSample | Fault]) -> tuple[ChunkBuilder, list[str]]:
    """The rows of a batch with their places, and the texts of those that are samples."""
    made = ChunkBuilder(encoder.columns)
    texts: list[str] = []
    for one in batch:
        fault = one if isinstance(one, Fault) else encoder.refuse(one)
        if fault is not None:
            made.fault(fault)
        elif isinstance(one, PlacedSample) and isinstance(one.sample, Text):
            made.place(one.file, one.line, item=one.item, scale=one.sample.weight)
            texts.append(one.sample.text)
    return made, texts
