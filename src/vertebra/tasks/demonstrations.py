"""`Demonstrations`: the episodes of one set as samples: a frame's images and sentence, and the chunk of actions behind it.

    frame     0     3     6     9   …                       every third one a sample
    images    ▣▣    ▣▣    ▣▣    ▣▣                          with earlier ones before them, where the policy sees several
    actions   a₀…a₇ a₃…a₁₀ …          a₉ a₁₀ end – – –      what lies behind the end is no target

Numbers of the whole set are held in memory, images are read when their batch is made. It does not know recipes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.action.bins import Bins
from vertebra.action.chunks import windows
from vertebra.action.frames import to_frame
from vertebra.action.normalization import normalize
from vertebra.action.record import PROPRIO, ActionRecord, segment_of
from vertebra.action.statistics import DatasetStatistics
from vertebra.data.encode.items import ImageItems
from vertebra.data.model_facts import ModelFacts
from vertebra.data.read.frames import Frames
from vertebra.data.read.rows import digest
from vertebra.data.samples.augment import Augmentation
from vertebra.data.samples.samples import Samples, Vectors
from vertebra.prompt.rendering import render
from vertebra.sequence.tokens import VECTORS, TokenSequence
from vertebra.tasks.acting import SEGMENT, Acting
from vertebra.tasks.wordings import Wordings

IMAGES = "images"
"""What a sample's extra calls its prepared pixels, by segment."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownDemonstration:
    """One demonstration, without its images."""

    episode: int
    sentence: str
    state: np.ndarray
    """[length, proprio], as recorded; of no numbers where the policy asks for none."""
    actions: np.ndarray
    """[length, dims], as recorded."""

    def __len__(self) -> int:
        return len(self.actions)

    def chunks(self, record: ActionRecord) -> tuple[np.ndarray, np.ndarray]:
        """(chunks [length, chunk, dims], pad [length, chunk]): as the record's frame measures them, one for each frame."""
        made, pad = windows(self.actions.astype(np.float64), record.chunk)
        return to_frame(made, record.frame, self.state, dims=record.frame_dims), pad


class Demonstrations(Samples):
    """Samples of one set's episodes. `frames`: by camera; `every`: how many frames lie between two samples of an episode."""

    def __init__(
        self,
        shown: Sequence[ShownDemonstration],
        model: ModelFacts,
        record: ActionRecord,
        way: Acting,
        key: str,
        frames: Mapping[str, Frames],
        *,
        bins: Bins | None = None,
        every: int = 1,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        wordings: Wordings | None = None,
        named: str = "",
    ) -> None:
        self.shown, self.record, self.way, self.bins = list(shown), record, way, bins
        self.frames, self.every, self.seed, self.named = dict(frames), every, seed, named
        self.augmentation = augmentation or Augmentation()
        self.wordings = dict(wordings or {})
        self.statistics = DatasetStatistics.of(record.statistics[key], key)
        self._render = _Rendered(model, record, way, bins)
        self._at = np.array(
            [(n, frame) for n, one in enumerate(self.shown) for frame in range(0, len(one), every)], np.int64
        ).reshape(-1, 2)
        chunks = [one.chunks(record) for one in self.shown]
        self._chunks = [self._normalized(made) for made, _ in chunks]
        self._pads = [pad for _, pad in chunks]
        self._proprio = [self._own(one.state) for one in self.shown]
        sentences = dict.fromkeys(one.sentence for one in self.shown)
        longest = {one: max(len(self._render.opened(words)) for words in self._words(one)) for one in sentences}
        self.lengths = np.array([longest[self.shown[number].sentence] for number, _ in self._at], np.int64)
        """Of a sentence with other words for it, that of the longest."""

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        number, frame = self._at[index]
        sequence = self._render(self._asked(index, epoch), self._chunks[number][frame], self._pads[number][frame])
        made = {name: getattr(sequence, name) for name in VECTORS if name != "ids"}
        return made | {"ids": sequence.ids, "segments": sequence.segments}

    def extra(self, index: int, epoch: int = 0) -> Mapping[str, Any]:
        number, frame = self._at[index]
        chunk, pad = self._chunks[number][frame], self._pads[number][frame]
        found: dict[str, Any] = self.way.items(chunk, pad=pad if pad.any() else None)
        if self.record.proprio is not None:
            found[PROPRIO] = self._proprio[number][frame][None].astype(np.float32)
        images = self.images(number, int(frame))
        if self.augmentation:
            images = self.augmentation(images, np.random.default_rng([self.seed, epoch, index]))
        return {**found, IMAGES: images}

    def _words(self, sentence: str) -> tuple[str, ...]:
        return sentence, *self.wordings.get(sentence, ())

    def _asked(self, index: int, epoch: int) -> str:
        """What a sample is asked in, drawn anew in every epoch: half the time its own words, else any of the others.

        Were its own as rare as each of the others, a model would learn to do without words wherever sight alone will do.
        """
        words = self._words(self.shown[self._at[index][0]].sentence)
        if len(words) == 1:
            return words[0]
        chance = np.random.default_rng([self.seed, epoch, index, 1])
        return words[0] if chance.random() < 0.5 else words[chance.integers(1, len(words))]

    def images(self, number: int, frame: int) -> dict[str, np.ndarray]:
        """The prepared pixels [moments, 3, S, S] of each camera, by segment."""
        moments = seen_at(frame, self.record)
        episode = self.shown[number].episode
        return {segment_of(camera): frames(episode, moments) for camera, frames in self.frames.items()}

    def where(self, index: int) -> str:
        number, frame = self._at[index]
        return f"{self.named}: episode {self.shown[number].episode}, frame {frame}"

    def fingerprint(self) -> str:
        shown = [(one.episode, one.sentence, len(one)) for one in self.shown]
        numbers = [digest(one.actions.tobytes().hex(), one.state.tobytes().hex()) for one in self.shown]
        settings: tuple[Any, ...] = (self.every, self.seed, repr(self.augmentation), self.way.name, sorted(self.frames))
        settings += (sorted(self.wordings.items()),) if self.wordings else ()
        return digest("demonstrations", shown, numbers, settings, self.record.to_json())

    def _normalized(self, chunks: np.ndarray) -> np.ndarray:
        return normalize(chunks, self.statistics.action, self.record.normalization)

    def _own(self, state: np.ndarray) -> np.ndarray:
        if self.statistics.proprio is None or self.record.proprio is None:
            return state
        how = self.record.proprio_normalization
        return normalize(state.astype(np.float64), self.statistics.proprio, how, proprio=True)


class _Rendered:
    """A sentence and a chunk as the model reads them; each sentence is rendered once."""

    def __init__(self, model: ModelFacts, record: ActionRecord, way: Acting, bins: Bins | None) -> None:
        self.backbone, self.sizes, self.anchored = model.backbone, dict(model.sizes), model.anchored
        self.record, self.way = record, way
        self.bins: Any = bins
        """None, where the answer is numbers, which asks for none."""
        self._known: dict[str, TokenSequence] = {}
        self._whole: dict[tuple[str, int], TokenSequence] = {}

    def __call__(self, sentence: str, chunk: np.ndarray, pad: np.ndarray) -> TokenSequence:
        """Where the answer is numbers, all chunks of a sentence with as many padded actions are one sequence."""
        if self.way.by_tokens:
            return self._answered(sentence, chunk, pad)
        key = sentence, int(pad.sum())
        if key not in self._whole:
            self._whole[key] = self._answered(sentence, chunk, pad)
        return self._whole[key]

    def opened(self, sentence: str) -> TokenSequence:
        """The sequence with an answer in it that nothing is learned of yet."""
        if sentence not in self._known:
            record, zeros = self.record, np.zeros((self.record.chunk, self.record.dims))
            counts = {segment_of(camera): record.history + 1 for camera in record.cameras}
            counts |= {PROPRIO: 1} if record.proprio is not None else {}
            turns = [
                {"role": "user", "content": record.message(record.asked(sentence), counts)},
                {"role": "assistant", "content": self.way.content(record.lead, zeros, self.bins)},
            ]
            builder_cls, backbone = self.backbone.prompt_builder_fn, self.backbone
            builder = builder_cls.of(backbone.tokenizer) if builder_cls.follows_tokenizer else builder_cls
            options = {"anchor": backbone.anchor, "anchored": self.anchored, "open_turn": False}
            made = render(turns, builder, backbone.tokenizer, self.sizes, **options)
            self._known[sentence] = made.with_vectors(weight=np.zeros(len(made)))
        return self._known[sentence]

    def _answered(self, sentence: str, chunk: np.ndarray, pad: np.ndarray) -> TokenSequence:
        return self.way.supervised(self.opened(sentence), chunk, self.bins, pad=pad)


def seen_at(frame: int, record: ActionRecord) -> list[int]:
    """The frames that a policy sees at a frame: earlier ones as many as it remembers, one a decision; the oldest repeated."""
    step = record.execute or record.chunk
    return [max(0, frame - step * back) for back in range(record.history, -1, -1)]


def frames_needed(length: int, every: int, record: ActionRecord) -> list[int]:
    """Every frame of an episode that some sample sees."""
    return sorted({seen for frame in range(0, length, every) for seen in seen_at(frame, record)})


class PreparedItems(ImageItems):
    """The items of a sample's slots, which are prepared already."""

    def images(self, extra: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return dict(extra[IMAGES])

    def pixels(self, images: Sequence[Any] | np.ndarray) -> np.ndarray:
        return np.asarray(images)

    def __call__(self, extra: Mapping[str, Any]) -> dict[str, np.ndarray]:
        own = {name: extra[name] for name in (SEGMENT, PROPRIO) if name in extra}
        return {**self.shown(extra), **own}
