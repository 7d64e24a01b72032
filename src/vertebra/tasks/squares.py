"""Kind `squares`, a synthetic policy: reach the colored square that an image shows, by an action of two bins.

    <s> ▣▣…▣ Reach the red square. │ <ACT> <ACT:5> <ACT:2> </s>       one token after the other
    <s> ▣▣…▣ Reach the red square. │ <ACT> ▢ ▢ </s>                   two slots, filled in one pass

The square stands anywhere, so that nothing but the image tells where: chance is about one in eight. Episodes are drawn by
Pillow, and judged by where an action moves the hand.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw

from vertebra.data.encode.chat import ImageFeatures
from vertebra.data.model_facts import ModelFacts
from vertebra.data.read.rows import digest
from vertebra.data.samples.samples import Samples, Vectors
from vertebra.prompt.rendering import render
from vertebra.sequence.tokens import VECTORS, TokenSequence
from vertebra.tasks.config import DataConfig
from vertebra.tasks.task import HeldOut, Job, Task

ACT = "<ACT>"
BINS = 8
TOKENS = (ACT, *(f"<ACT:{number}>" for number in range(BINS)))
COLORS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220), "yellow": (230, 200, 40)}
SIZE, SIDE = 32, 8  # of an image and of the square, in pixels
_LOW, _HIGH = SIDE / 2, SIZE - SIDE / 2


class Reach(Task):
    """A policy that must look at its image."""

    name: ClassVar[str] = "squares"
    settings: ClassVar[tuple[str, ...]] = ("count", "parallel", "shuffled_images", "block")
    needs: ClassVar[tuple[str, ...]] = ("image",)

    def tokens(self, data: DataConfig) -> tuple[str, ...]:
        return TOKENS

    def queries(self, data: DataConfig) -> Mapping[str, int]:
        return {"action": 2} if data.parallel else {}

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


class Episode:
    """One image, its instruction, and where the square's middle is."""

    def __init__(self, seed: int, number: int) -> None:
        rng = np.random.default_rng([seed, number])
        self.center = rng.uniform(_LOW, _HIGH, 2)
        self.color = str(rng.choice(list(COLORS)))
        self.ground = tuple(int(v) for v in rng.integers(90, 140, 3))

    @property
    def instruction(self) -> str:
        return f"Reach the {self.color} square."

    @property
    def bins(self) -> tuple[int, int]:
        """The action that is exactly right."""
        shares = (self.center - _LOW) / (_HIGH - _LOW)
        x, y = np.clip((shares * BINS).astype(int), 0, BINS - 1)
        return int(x), int(y)

    def reached(self, bins: Sequence[int]) -> bool:
        """Whether a hand that moves to the middle of these bins touches the square."""
        return bool((np.abs(self.hand(bins) - self.center) <= SIDE / 2).all())

    def hand(self, bins: Sequence[int]) -> np.ndarray:
        """Where an action moves the hand."""
        return _LOW + (np.asarray(bins) + 0.5) / BINS * (_HIGH - _LOW)

    def drawn(self, bins: Sequence[int]) -> bytes:
        """The image, four times as large, with a cross where an action moves the hand; as a PNG."""
        image = self.image().resize((4 * SIZE, 4 * SIZE), Image.Resampling.NEAREST)
        x, y = (4 * self.hand(bins)).tolist()
        pen = ImageDraw.Draw(image)
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


class Squares(Samples):
    """Episodes as samples. `shuffled` shows each another one's image."""

    def __init__(
        self, model: Any, count: int, *, seed: int = 0, parallel: bool = False, shuffled: bool = False
    ) -> None:
        self.count, self.seed, self.parallel, self.shuffled = count, seed, parallel, shuffled
        self.tokenizer, self.builder = model.backbone.tokenizer, model.backbone.prompt_builder_fn
        self.sizes, self.anchor = dict(model.sizes), model.backbone.anchor
        self.ids = [int(i) for i in self.tokenizer.convert_tokens_to_ids(list(TOKENS))]
        self.episodes = [Episode(seed, number) for number in range(count)]
        self._sequences = [self._sequence(episode) for episode in self.episodes]
        self.lengths = np.array([len(sequence) for sequence in self._sequences])

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        sequence = self._sequences[index]
        return {name: getattr(sequence, name) for name in VECTORS if name != "ids"} | {
            "ids": sequence.ids,
            "segments": sequence.segments,
        }

    def extra(self, index: int) -> Mapping[str, Any]:
        shown = (index + 1) % self.count if self.shuffled else index
        file = io.BytesIO()
        self.episodes[shown].image().save(file, "PNG")
        return {"images": [file.getvalue()]}

    def where(self, index: int) -> str:
        return f"episode {index} of seed {self.seed}"

    def fingerprint(self) -> str:
        tokens = [sequence.ids.tolist() for sequence in self._sequences[:8]]
        return digest("squares", self.count, self.seed, self.parallel, self.shuffled, tokens)

    def prompt(self, index: int) -> TokenSequence:
        """The sequence up to and with `<ACT>`, exactly as it was trained on."""
        sequence = self._sequences[index]
        return sequence.cut(0, int(np.flatnonzero(sequence.ids == self.ids[0])[-1]) + 1)

    def _asked(self, episode: Episode) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": episode.instruction}]}]

    def _sequence(self, episode: Episode) -> TokenSequence:
        act, *bins = self.ids
        said = [bins[number] for number in episode.bins]
        action: list[dict[str, Any]] = [{"type": "action", "ids": [act, *([] if self.parallel else said)]}]
        if self.parallel:
            action.append({"type": "action", "count": len(said)})
        answer = {"role": "assistant", "content": action}
        turns = [*self._asked(episode), answer]
        made = render(turns, self.builder, self.tokenizer, self.sizes, anchor=self.anchor, open_turn=False)
        if not self.parallel:
            return made
        at = slots_of(made, "action")
        target, weight = made.target.copy(), made.weight.copy()
        target[at], weight[at] = said, 1.0
        return replace(made, target=target, weight=weight)


def slots_of(sequence: TokenSequence, segment: str) -> np.ndarray:
    """Where the slots of a segment stand."""
    if segment not in sequence.segments:
        return np.zeros(0, int)
    return np.flatnonzero(sequence.slot[:, 0] == sequence.segments.index(segment))


def _squares(model: ModelFacts, data: DataConfig, count: int, seed: int) -> Squares:
    return Squares(model, count, seed=seed, parallel=data.parallel, shuffled=data.shuffled_images)


def success(model: Any, squares: Squares, *, batch: int = 32) -> float:
    """The share of episodes whose square is reached, by greedy actions among the bins alone."""
    reached = 0
    for start in range(0, len(squares), batch):
        numbers = range(start, min(start + batch, len(squares)))
        actions = _actions(model, squares, numbers)
        reached += sum(squares.episodes[n].reached(action) for n, action in zip(numbers, actions, strict=True))
    return reached / len(squares)


def shown(model: Any, squares: Squares, count: int) -> list[dict[str, str]]:
    """What a policy does in some episodes: its action in words, and a cross where its hand goes."""
    numbers = range(min(count, len(squares)))
    found = []
    for number, action in zip(numbers, _actions(model, squares, numbers), strict=True):
        episode = squares.episodes[number]
        verdict = "reached" if episode.reached(action) else "missed"
        picture = base64.b64encode(episode.drawn(action)).decode()
        said = f"{' '.join(f'<ACT:{bin}>' for bin in action)} – {verdict}"
        found.append({"prompt": episode.instruction, "answer": said, "image": picture})
    return found


def _actions(model: Any, squares: Squares, numbers: Sequence[int]) -> list[list[int]]:
    """The policy's action in each of these episodes."""
    import torch

    was = model.training
    model.eval()
    with torch.no_grad():
        made = (_parallel if squares.parallel else _one_by_one)(model, squares, numbers)
    model.train(was)
    return made


def _batch(model: Any, squares: Squares, numbers: Sequence[int], sequences: Sequence[TokenSequence]) -> Any:
    from vertebra.sequence.batch import collate

    features = ImageFeatures(model.parts["image"].encoder.preparation)
    made = [features(squares.extra(number)) for number in numbers]
    return collate(sequences, made, pad_id=model.backbone.pad_token_id, side="left").to(model.backbone.device)


def _one_by_one(model: Any, squares: Squares, numbers: Sequence[int]) -> list[list[int]]:
    """A bin, then a bin, each after a forward over the whole row."""
    import torch

    bins = squares.ids[1:]
    batch = _batch(model, squares, numbers, [squares.prompt(number) for number in numbers])
    device = batch.device
    said: list[list[int]] = [[] for _ in numbers]
    for _ in range(2):
        logits = model(**batch, return_loss=False, logits_to_keep=1).logits[:, -1]
        best = logits[:, bins].argmax(-1).tolist()
        for row, number in zip(said, best, strict=True):
            row.append(number)
        batch = batch.append(torch.tensor([[bins[number]] for number in best], device=device))
    return said


def _parallel(model: Any, squares: Squares, numbers: Sequence[int]) -> list[list[int]]:
    """Both slots in one forward, each read one position before it."""
    import torch

    bins = squares.ids[1:]
    sequences = [squares.sequence(number) for number in numbers]
    batch = _batch(model, squares, numbers, sequences)
    rows, columns = [], []
    for row, sequence in enumerate(sequences):
        shift = batch.length - len(sequence)
        for at in slots_of(sequence, "action").tolist():
            rows.append(row)
            columns.append(at + shift - 1)
    where = (torch.tensor(rows, device=batch.device), torch.tensor(columns, device=batch.device))
    logits = model(**batch, return_loss=False, positions=where).logits
    return logits[:, bins].argmax(-1).view(len(numbers), -1).tolist()
