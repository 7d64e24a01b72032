"""Kind `squares`, a synthetic policy: reach the colored square that an image shows, by a chunk of actions.

    <s> ▣▣…▣ Reach the red square. │ <ACT> <ACT:5> <ACT:2> </s>       head tokens: one after the other
    <s> ▣▣…▣ Reach the red square. │ <ACT> ▢ ▢ </s>                   parallel, l1: slots, filled in one pass
    <s> ▣▣…▣ Reach the red square. │ <ACT> ▢ </s>                     flow: one slot, behind which actions are denoised

The square stands anywhere, so that nothing but the image tells where: chance is about one in eight. An action is where the
hand goes, in −1 … 1; a chunk leads there in equal steps from the middle of the image. Episodes are drawn by Pillow, and
judged by where the last action leaves the hand.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw

from vertebra.action.bins import Bins, uniform_bins
from vertebra.action.record import POLICY, ActionRecord
from vertebra.data.encode.chat import ImageFeatures
from vertebra.data.encode.items import ItemValues, Together
from vertebra.data.model_facts import ModelFacts
from vertebra.data.read.rows import digest
from vertebra.data.samples.samples import Samples, Vectors
from vertebra.prompt.rendering import render
from vertebra.sequence.tokens import VECTORS, TokenSequence
from vertebra.tasks.acting import SEGMENT, Acting, ActingConfig, acting
from vertebra.tasks.config import DataConfig
from vertebra.tasks.task import Features, HeldOut, Job, Task

ACT = "<ACT>"
BINS = 8
TOKENS = (ACT, *(f"<ACT:{number}>" for number in range(BINS)))
COLORS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220), "yellow": (230, 200, 40)}
SIZE, SIDE = 32, 8  # of an image and of the square, in pixels
DIMS = 2
_LOW, _HIGH = SIDE / 2, SIZE - SIDE / 2


class Reach(Task):
    """A policy that must look at its image."""

    name: ClassVar[str] = "squares"
    settings: ClassVar[tuple[str, ...]] = ("count", "head", "chunk", "parallel", "shuffled_images", "block")
    needs: ClassVar[tuple[str, ...]] = ("image",)
    Options: ClassVar[type | None] = ActingConfig

    def options(self, data: DataConfig) -> Any:
        way_of(data)  # refuses what the head has no use for
        return super().options(data)

    def tokens(self, data: DataConfig) -> tuple[str, ...]:
        return TOKENS

    def queries(self, data: DataConfig) -> Mapping[str, int]:
        slots = way_of(data).slots
        return {SEGMENT: slots} if slots else {}

    def heads(self, data: DataConfig, backbone: Any) -> Mapping[str, Any]:
        return way_of(data).heads(backbone)

    def record(self, data: DataConfig, backbone: Any) -> Mapping[str, Any]:
        """The pixels that −1 and 1 mean stand as the quantiles of an action."""
        way, ids = way_of(data), ids_of(backbone.tokenizer)
        ends = {"q01": [_LOW] * DIMS, "q99": [_HIGH] * DIMS, "mask": [True] * DIMS}
        made = ActionRecord(
            head=way.name,
            dims=DIMS,
            chunk=way.chunk,
            bins=bins_of(ids).to_json() if way.by_tokens else None,
            lead=(ids[0],),
            statistics={self.name: {"action": ends}},
            **way.record(),
        )
        return {POLICY: made.to_json()}

    def example(self, job: Job) -> tuple[Any, str] | None:
        episode = SquareEpisode(job.seed + 1, 0)
        return {"images": {"image": np.asarray(episode.image())}}, episode.instruction

    def features(self, job: Job) -> Features | None:
        images = super().features(job)
        return images if images is None or way_of(job.data).by_tokens else Together(images, ItemValues(SEGMENT))

    def packs(self, data: DataConfig) -> bool:
        return False  # all are of one length

    def drawn(self, job: Job) -> tuple[Samples, Samples | None]:
        data = job.data
        held_out = max(8, int(data.count * data.held_out))
        return _squares(job.model, data, data.count, job.seed), _squares(job.model, data, held_out, job.seed + 1)

    def measure(self, learner: Any, held_out: HeldOut) -> dict[str, float]:
        if not isinstance(held_out.samples, Squares) or held_out.world > 1:
            return {}
        return {"success": success(learner.model, held_out.samples)}

    def shown(self, model: Any, job: Job, prompts: Sequence[str], length: int) -> list[dict[str, str]]:
        """What the policy does in episodes that were held out."""
        return shown(model, _squares(job.model, job.data, 4, job.seed + 1), 4)


class SquareEpisode:
    """One image, its instruction, and where the square's middle is."""

    def __init__(self, seed: int, number: int) -> None:
        rng = np.random.default_rng([seed, number])
        self.center = rng.uniform(_LOW, _HIGH, 2)
        self.color = str(rng.choice(list(COLORS)))
        self.ground = tuple(int(v) for v in rng.integers(90, 140, 3))

    @property
    def instruction(self) -> str:
        return f"Reach the {self.color} square."

    def actions(self, chunk: int = 1) -> np.ndarray:
        """[chunk, 2] the actions that are exactly right, in −1 … 1."""
        goal = 2 * (self.center - _LOW) / (_HIGH - _LOW) - 1
        return np.arange(1, chunk + 1)[:, None] / chunk * goal

    def reached(self, actions: np.ndarray) -> bool:
        """Whether the hand touches the square where the last of these actions [chunk, 2] leaves it."""
        return bool((np.abs(hand(actions[-1]) - self.center) <= SIDE / 2).all())

    def drawn(self, actions: np.ndarray) -> bytes:
        """The image, four times as large, with a cross where the hand ends and a dot where it was before; as a PNG."""
        image = self.image().resize((4 * SIZE, 4 * SIZE), Image.Resampling.NEAREST)
        pen = ImageDraw.Draw(image)
        for action in actions[:-1]:
            x, y = (4 * hand(action)).tolist()
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill="white", outline="black")
        x, y = (4 * hand(actions[-1])).tolist()
        for dx, dy in ((8, 0), (0, 8)):
            pen.line((x - dx, y - dy, x + dx, y + dy), fill="black", width=4)
            pen.line((x - dx, y - dy, x + dx, y + dy), fill="white", width=2)
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    def image(self) -> Image.Image:
        image = Image.new("RGB", (SIZE, SIZE), self.ground)
        x, y = self.center
        box = (x - SIDE / 2, y - SIDE / 2, x + SIDE / 2 - 1, y + SIDE / 2 - 1)
        ImageDraw.Draw(image).rectangle(box, fill=COLORS[self.color])
        return image


def hand(action: np.ndarray) -> np.ndarray:
    """Where an action in −1 … 1 moves the hand, in pixels."""
    return _LOW + (np.asarray(action) + 1) / 2 * (_HIGH - _LOW)


def ids_of(tokenizer: Any) -> list[int]:
    """The ids of `<ACT>` and of the bins."""
    return [int(one) for one in tokenizer.convert_tokens_to_ids(list(TOKENS))]


def bins_of(ids: Sequence[int]) -> Bins:
    """Numbers ⇄ ids, for the heads that predict tokens."""
    return uniform_bins(list(ids[1:]))


def way_of(data: DataConfig) -> Acting:
    """How a config has actions answered."""
    name = "parallel" if data.parallel else data.head
    return acting(name, chunk=data.chunk, dims=DIMS, options=data.options)


class Squares(Samples):
    """Episodes as samples. `way`: how they are answered. `shuffled` shows each another one's image."""

    def __init__(
        self, model: Any, count: int, *, seed: int = 0, way: Acting | str = "tokens", shuffled: bool = False
    ) -> None:
        self.count, self.seed, self.shuffled = count, seed, shuffled
        self.way = acting(way, dims=DIMS) if isinstance(way, str) else way
        self.tokenizer, self.builder = model.backbone.tokenizer, model.backbone.prompt_builder_fn
        self.sizes, self.anchor = dict(model.sizes), model.backbone.anchor
        self.ids = ids_of(self.tokenizer)
        self.bins = bins_of(self.ids)
        self.episodes = [SquareEpisode(seed, number) for number in range(count)]
        self._sequences = [self._sequence(episode) for episode in self.episodes]
        self.lengths = np.array([len(sequence) for sequence in self._sequences])

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        sequence = self._sequences[index]
        return {name: getattr(sequence, name) for name in VECTORS if name != "ids"} | {
            "ids": sequence.ids,
            "segments": sequence.segments,
        }

    def extra(self, index: int, epoch: int = 0) -> Mapping[str, Any]:
        shown = (index + 1) % self.count if self.shuffled else index
        file = io.BytesIO()
        self.episodes[shown].image().save(file, "PNG")
        return {"images": [file.getvalue()], **self.way.items(self.episodes[index].actions(self.way.chunk))}

    def where(self, index: int) -> str:
        return f"episode {index} of seed {self.seed}"

    def fingerprint(self) -> str:
        tokens = [sequence.ids.tolist() for sequence in self._sequences[:8]]
        way = (self.way.name, self.way.chunk)
        return digest("squares", self.count, self.seed, way, self.shuffled, tokens)

    def prompt(self, index: int) -> TokenSequence:
        """The sequence as it stands before the answer, exactly as it was trained on."""
        return self.way.opened(self._sequences[index], self.ids[:1])

    def _asked(self, episode: SquareEpisode) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": episode.instruction}]}]

    def _sequence(self, episode: SquareEpisode) -> TokenSequence:
        actions = episode.actions(self.way.chunk)
        answer = {"role": "assistant", "content": self.way.content(self.ids[:1], actions, self.bins)}
        turns = [*self._asked(episode), answer]
        made = render(turns, self.builder, self.tokenizer, self.sizes, anchor=self.anchor, open_turn=False)
        return self.way.supervised(made, actions, self.bins)


def _squares(model: ModelFacts, data: DataConfig, count: int, seed: int) -> Squares:
    return Squares(model, count, seed=seed, way=way_of(data), shuffled=data.shuffled_images)


def success(model: Any, squares: Squares, *, batch: int = 32) -> float:
    """The share of episodes whose square is reached, by greedy actions."""
    reached = 0
    for start in range(0, len(squares), batch):
        numbers = range(start, min(start + batch, len(squares)))
        done = actions_of(model, squares, numbers)
        reached += sum(squares.episodes[n].reached(actions) for n, actions in zip(numbers, done, strict=True))
    return reached / len(squares)


def shown(model: Any, squares: Squares, count: int) -> list[dict[str, str]]:
    """What a policy does in some episodes: its last action in words, and a cross where its hand ends."""
    numbers = range(min(count, len(squares)))
    found = []
    for number, actions in zip(numbers, actions_of(model, squares, numbers), strict=True):
        episode = squares.episodes[number]
        verdict = "reached" if episode.reached(actions) else "missed"
        picture = base64.b64encode(episode.drawn(actions)).decode()
        found.append(
            {"prompt": episode.instruction, "answer": f"{_written(squares, actions[-1])} – {verdict}", "image": picture}
        )
    return found


def _written(squares: Squares, action: np.ndarray) -> str:
    """An action as its tokens, or as its numbers."""
    if squares.way.by_tokens:
        return " ".join(squares.tokenizer.convert_ids_to_tokens(squares.bins.encode(action).tolist()))
    return " ".join(f"{number:+.2f}" for number in action)


def actions_of(model: Any, squares: Squares, numbers: Sequence[int]) -> np.ndarray:
    """[episodes, chunk, 2]: the policy's actions in each of these episodes."""
    images = ImageFeatures(model.parts["image"].encoder.preparation)
    items = [images(squares.extra(number)) for number in numbers]
    batch = model.collate([squares.prompt(number) for number in numbers], items, side="left")
    return squares.way.actions(model, batch, squares.bins)
