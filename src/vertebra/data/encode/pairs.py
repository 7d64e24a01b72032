"""Sentence pairs with a class: `[CLS] first [SEP] second [SEP]`, token types where the model has them, labels by name.

    ids     [CLS] he said so [SEP] so he said [SEP]
    type      0    0   0   0   0    1  1   1    1         all 0 for a model without token types
    label   equivalent → 1                                beside the tokens; a batch gets `labels`

For encoders with a classification head. A language model reads pairs as conversations instead: `as_conversation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vertebra.data.encode.encoders import Encoder, PlacedSample
from vertebra.data.read.conversations import Conversation
from vertebra.data.read.formats import Pair, Sample
from vertebra.data.read.labels import Labels
from vertebra.data.read.rows import Fault, digest
from vertebra.data.samples.samples import Samples, Vectors
from vertebra.data.samples.table import ChunkBuilder, RowChunk
from vertebra.errors import DataError, VocabularyError
from vertebra.prompt.conversation import turns_of
from vertebra.sequence.tokens import NO_TARGET

QUESTION = "{first}\n{second}\nDo these two agree?"
"""How a pair is put to a language model; its class's name is the answer."""


class Classified(Samples):
    """Labelled samples as a classifier is trained on them: the class is the one target, at the first position."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.lengths, self.mixes = samples.lengths, samples.mixes

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        vectors = self.samples.vectors(index, epoch)
        target = np.full(len(vectors["ids"]), NO_TARGET, np.int32)
        target[0] = self.samples.extra(index)["label"]
        weight = np.zeros(len(target), np.float32)
        weight[0] = 1
        return vectors | {"target": target, "weight": weight}

    def order(self, epoch: int, seed: int, *, shuffle: bool = True) -> np.ndarray:
        return self.samples.order(epoch, seed, shuffle=shuffle)

    def where(self, index: int) -> str:
        return self.samples.where(index)

    def extra(self, index: int, epoch: int = 0) -> Mapping[str, Any]:
        return self.samples.extra(index, epoch)

    def fingerprint(self) -> str:
        return digest("classified", self.samples.fingerprint())


class PairEncoder(Encoder):
    """One or two sentences between the tokenizer's own special tokens, with their label.

    max_length: longer pairs are cut at the longer sentence's end, as `truncation="longest_first"` does.
    """

    name = "pairs"

    def __init__(self, tokenizer: Any, labels: Labels, *, max_length: int | None = None) -> None:
        super().__init__(tokenizer)
        self.labels, self.max_length = labels, max_length
        self.uses_types = "token_type_ids" in tokenizer.model_input_names
        self._between(tokenizer)

    def _between(self, tokenizer: Any) -> None:
        """What stands before, between and behind two sentences, found by encoding two letters."""
        letter = tokenizer("a", add_special_tokens=False).input_ids
        pair = tokenizer("a", "a")
        ids, size = list(pair.input_ids), len(letter)
        starts = [at for at in range(len(ids) - size + 1) if ids[at : at + size] == letter]
        if len(starts) != 2:
            raise VocabularyError(
                f"{type(tokenizer).__name__} encodes a pair as {ids}; its two sentences are not found"
            )
        first, second = starts
        self.before, self.between, self.after = ids[:first], ids[first + size : second], ids[second + size :]
        if not self.between:
            raise VocabularyError(
                f"{type(tokenizer).__name__} puts nothing between two sentences: it is no encoder's. For a language model "
                "make conversations of the pairs: `as_conversation`."
            )
        types = pair.get("token_type_ids", [0] * len(ids))
        self.first_type, self.second_type = types[first], types[second]
        self.between_types = types[first + size : second]
        self.after_types = types[second + size :]

    @property
    def takes(self) -> tuple[type, ...]:
        return (Pair,)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("ids", "weight", "type")

    def options(self) -> Mapping[str, Any]:
        return {
            "labels": self.labels.names,
            "max_length": self.max_length,
            "types": self.uses_types,
            "by_number": self.labels.by_number,
        }

    def encode(self, batch: Sequence[PlacedSample | Fault]) -> RowChunk:
        made = ChunkBuilder(self.columns)
        pairs = [one for one in batch if isinstance(one, PlacedSample) and isinstance(one.sample, Pair)]
        texts = [
            text
            for one in pairs
            if isinstance(one.sample, Pair)
            for text in (one.sample.first, one.sample.second or "")
        ]
        flat = self.tokens(texts)
        row = 0
        for one in batch:
            fault = one if isinstance(one, Fault) else self.refuse(one)
            if fault is not None:
                made.fault(fault)
                continue
            assert isinstance(one, PlacedSample)
            assert isinstance(one.sample, Pair)
            label = self.labels.number(one.sample.label)
            first, second = flat.row(2 * row), flat.row(2 * row + 1)
            row += 1
            if isinstance(label, str):
                made.fault(one.fault(label))
                continue
            made.place(one.file, one.line, item=one.item, extra={"label": label})
            made.vectors(self._joined(first, second if one.sample.second else None))
        return made.built()

    def _joined(self, first: np.ndarray, second: np.ndarray | None) -> dict[str, np.ndarray]:
        if second is None:
            first, _ = self._cut(first, first[:0], len(self.before) + len(self.after))
            parts = [self.before, first, self.after]
            types = [[self.first_type] * (len(self.before) + len(first) + len(self.after))]
        else:
            special = len(self.before) + len(self.between) + len(self.after)
            first, second = self._cut(first, second, special)
            parts = [self.before, first, self.between, second, self.after]
            types = [
                [self.first_type] * (len(self.before) + len(first)),
                self.between_types,
                [self.second_type] * len(second),
                self.after_types,
            ]
        ids = np.concatenate([np.asarray(part, np.int32) for part in parts])
        # Nothing is predicted token by token here: the label is what counts.
        type_ids = np.concatenate([np.asarray(part, np.int8) for part in types])
        return {"ids": ids, "type": type_ids, "weight": np.zeros(len(ids), np.float32)}

    def _cut(self, first: np.ndarray, second: np.ndarray, special: int) -> tuple[np.ndarray, np.ndarray]:
        """The longer one is cut until both are equally long, then both; an odd token stays with the longer one."""
        if self.max_length is None or len(first) + len(second) + special <= self.max_length:
            return first, second
        room = self.max_length - special
        if room < 0:
            raise DataError(f"max_length {self.max_length} has no room for {special} special tokens")
        shorter, longer = sorted((len(first), len(second)))
        longer = max(shorter, room - shorter)
        if shorter + longer > room:
            shorter, longer = room // 2, room - room // 2
        kept = (longer, shorter) if len(first) > len(second) else (shorter, longer)
        return first[: kept[0]], second[: kept[1]]


def as_conversation(sample: Sample, labels: Labels, question: str = QUESTION) -> Sample:
    """A pair as a question whose answer is the name of its class, for a language model."""
    if not isinstance(sample, Pair):
        return sample
    label = labels.number(sample.label)
    if isinstance(label, str):
        raise DataError(label)
    answer = str(label) if labels.names is None else labels.names[int(label)]
    asked = question.format(first=sample.first, second=sample.second or "").strip()
    return Conversation(tuple(turns_of([asked], [answer])))
