"""`Quiz`: kinds whose questions are drawn from a seed, with or without a picture, and whose answers are right or wrong.

    item ──► ▣▣…▣ question ─► answer │ question ─► answer …     to train on: several questions about one picture
    held out: each question alone, answered greedily; the share that is right, of all and of each sort

A subclass draws items. It does not know what they show.
"""

from __future__ import annotations

import base64
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from vertebra.config import Some
from vertebra.data.model_facts import ModelFacts
from vertebra.data.read.rows import digest
from vertebra.data.samples.samples import Samples, Vectors
from vertebra.errors import ConfigError
from vertebra.prompt.rendering import render
from vertebra.sequence.tokens import VECTORS, TokenSequence
from vertebra.tasks.task import HeldOut, Job, Task, answered

AT_ONCE = 32
"""Questions that are answered together."""
SHOWN = 8
LEARNED = 400
"""Training items whose answers are counted, to tell what guessing reaches."""


@dataclass(frozen=True, kw_only=True)
class QuizQuestion:
    """One question, and the one answer to it that is right."""

    text: str
    answer: str
    sort: str
    """What is asked for: answers are counted by it."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """Questions about one thing."""

    questions: tuple[QuizQuestion, ...]
    picture: bytes | None = None
    """A PNG."""
    scene: Any = None
    """What the picture was drawn from, for kinds that name what each slot shows."""


@dataclass(frozen=True, kw_only=True)
class QuizConfig:
    """How much of a quiz is asked in an evaluation."""

    asked: Some = 200
    """Held-out questions."""


class Quiz(Task):
    """Questions with one right answer."""

    settings: ClassVar[tuple[str, ...]] = ("count", "block")
    Options: ClassVar[type | None] = QuizConfig
    supervised: ClassVar[float] = 0.1
    sorts: ClassVar[tuple[str, ...]] = ()
    """The sorts of its questions, where there are several."""
    longest: ClassVar[int] = 8
    """Tokens of the longest answer."""

    @abstractmethod
    def item(self, seed: int, number: int, options: Any, *, held_out: bool) -> Item:
        """Item `number`, always the same; held-out ones may hold what training never shows. `options`: of its kind."""

    def slot_words(self, item: Item, slots: int, options: Any) -> Sequence[tuple[str, float]]:
        """For each slot of the picture the word that the slot is to predict, and how much that counts; or nothing."""
        return ()

    def drawn(self, job: Job) -> tuple[Samples, Samples | None]:
        data = job.data
        held_out = max(1, round(data.count * data.held_out)) if data.held_out else 0
        train = Quizzes(self, job, data.count)
        return train, Quizzes(self, job, held_out, held_out=True) if held_out else None

    def measure(self, learner: Any, held_out: HeldOut) -> dict[str, float]:
        # where lower layers are cached, the same samples stand behind those in the other form
        quizzes = getattr(held_out.samples, "samples", held_out.samples)
        if not isinstance(quizzes, Quizzes):
            return {}
        return dict(learner(call=partial(self._marks, quizzes=quizzes)))

    def _marks(self, model: Any, quizzes: Quizzes) -> dict[str, float]:
        most = self.options(quizzes.job.data).asked
        asked = list(islice(quizzes.alone(), most))
        right: dict[str, list[bool]] = {}
        for (_, question), answer in zip(asked, answers_to(model, asked, quizzes, self.longest), strict=True):
            for sort in {"accuracy", question.sort}:
                right.setdefault(sort, []).append(answer == question.answer)
        order = ("accuracy", *(sort for sort in self.sorts if sort in right))
        found = {sort: float(np.mean(right[sort])) for sort in order}
        return found | ({"guessing": quizzes.guessed(asked)} if self.sorts else {})

    def shown(self, model: Any, job: Job, prompts: Sequence[str], length: int) -> list[dict[str, str]]:
        """Answers to held-out questions, and to the recipe's own prompts."""
        quizzes = Quizzes(self, job, SHOWN, held_out=True)
        asked = list(islice(quizzes.alone(), SHOWN))
        found = []
        for (number, question), answer in zip(asked, answers_to(model, asked, quizzes, self.longest), strict=True):
            verdict = "right" if answer == question.answer else f"wrong: {question.answer}"
            row = {"prompt": question.text, "answer": f"{answer} – {verdict}"}
            picture = quizzes.picture(number)
            found.append(row if picture is None else row | {"image": base64.b64encode(picture).decode()})
        own = [{"prompt": text, "answer": answered(model, self.prompt(text, job), length)} for text in prompts]
        return [*found, *own]

    def prompt(self, text: str, job: Job) -> TokenSequence:
        return Quizzes(self, job, 0).rendered([{"role": "user", "content": text}], open_turn=True)


class Quizzes(Samples):
    """Items as samples: a conversation each. `shuffled_images` shows each another one's picture."""

    def __init__(self, quiz: Quiz, job: Job, count: int, *, held_out: bool = False) -> None:
        self.quiz, self.job, self.count, self.held_out = quiz, job, count, held_out
        self.seed = job.seed + held_out
        self._ids: dict[str, int] = {}
        options = quiz.options(job.data)
        self.items = [quiz.item(self.seed, number, options, held_out=held_out) for number in range(count)]
        self._sequences = [self._fitting(item) for item in self.items]
        self.lengths = np.array([len(sequence) for sequence in self._sequences], np.int64)

    def vectors(self, index: int, epoch: int = 0) -> Vectors:
        sequence = self._sequences[index]
        return {name: getattr(sequence, name) for name in VECTORS} | {"segments": sequence.segments}

    def extra(self, index: int, epoch: int = 0) -> Mapping[str, Any]:
        picture = self.picture(index)
        return {} if picture is None else {"images": [picture]}

    def picture(self, index: int) -> bytes | None:
        """What is shown with an item's questions."""
        shown = (index + 1) % self.count if self.job.data.shuffled_images else index
        return self.items[shown].picture

    def where(self, index: int) -> str:
        return f"item {index} of seed {self.seed}"

    def fingerprint(self) -> str:
        ids = [(sequence.ids.tolist(), sequence.weight.tolist()) for sequence in self._sequences[:8]]
        return digest(self.quiz.name, self.count, self.seed, self.held_out, self.job.data.shuffled_images, ids)

    def alone(self) -> Iterator[tuple[int, QuizQuestion]]:
        """Every question, with the number of its item: one of each item, then the next of each."""
        for place in range(max((len(item.questions) for item in self.items), default=0)):
            for number, item in enumerate(self.items):
                if place < len(item.questions):
                    yield number, item.questions[place]

    def guessed(self, asked: Sequence[tuple[int, QuizQuestion]]) -> float:
        """How many of these questions are right for one who has learned how frequent answers are, and sees nothing."""
        frequent = self._frequent
        guesses = [frequent.get(one.text) or frequent.get(one.sort, Counter()) for _, one in asked]
        right = [
            guess.most_common(1)[0][0] == one.answer for guess, (_, one) in zip(guesses, asked, strict=True) if guess
        ]
        return sum(right) / max(len(asked), 1)

    @cached_property
    def _frequent(self) -> dict[str, Counter[str]]:
        """The answers of training, by question and by sort."""
        options = self.quiz.options(self.job.data)
        frequent: dict[str, Counter[str]] = {}
        for number in range(LEARNED):
            for question in self.quiz.item(self.job.seed, number, options, held_out=False).questions:
                for known_by in (question.text, question.sort):
                    frequent.setdefault(known_by, Counter())[question.answer] += 1
        return frequent

    def asking(self, number: int, question: QuizQuestion) -> TokenSequence:
        """One question alone, as a prompt."""
        content = self._content(question, first=self.items[number].picture is not None)
        return self.rendered([{"role": "user", "content": content}], open_turn=True)

    def rendered(self, turns: list[dict[str, Any]], *, open_turn: bool = False) -> TokenSequence:
        model: ModelFacts = self.job.model
        backbone = model.backbone
        form = backbone.prompt_builder_fn
        builder = form.of(model.tokenizer) if form.follows_tokenizer else form
        options = {"anchor": backbone.anchor, "anchored": model.anchored, "open_turn": open_turn}
        return render(turns, builder, model.tokenizer, dict(model.sizes), **options)

    def _fitting(self, item: Item) -> TokenSequence:
        """An item with as many of its questions as a row has room for."""
        for count in range(len(item.questions), 0, -1):
            sequence = self.rendered(self._turns(item.questions[:count], pictured=item.picture is not None))
            if len(sequence) <= self.job.size:
                return self._with_words(sequence, item)
        raise ConfigError(
            f"kind `{self.quiz.name}`: one question and its answer take {len(sequence)} positions, and block is "
            f"{self.job.size}; give data.block={len(sequence)} or more"
        )

    def _with_words(self, sequence: TokenSequence, item: Item) -> TokenSequence:
        """The same with targets for its slots. The last slot has none: what stands behind it is a word of the question."""
        at = np.flatnonzero(sequence.slot[:, 0] >= 0)
        words = self.quiz.slot_words(item, len(at), self.quiz.options(self.job.data))
        if not words:
            return sequence
        target, weight = sequence.target.copy(), sequence.weight.copy()
        for place, (word, counts) in zip(at[:-1], words, strict=False):
            target[place + 1], weight[place + 1] = self._first_id(word), counts
        return replace(sequence, target=target, weight=weight)

    def _first_id(self, word: str) -> int:
        if word not in self._ids:
            self._ids[word] = int(self.job.model.tokenizer(f" {word}", add_special_tokens=False).input_ids[0])
        return self._ids[word]

    def _turns(self, questions: Sequence[QuizQuestion], *, pictured: bool) -> list[dict[str, Any]]:
        turns: list[dict[str, Any]] = []
        for question in questions:
            content = self._content(question, first=pictured and not turns)
            turns += [{"role": "user", "content": content}, {"role": "assistant", "content": question.answer}]
        return turns

    def _content(self, question: QuizQuestion, *, first: bool) -> Any:
        return [{"type": "image"}, {"type": "text", "text": question.text}] if first else question.text


def answers_to(model: Any, asked: Sequence[tuple[int, QuizQuestion]], quizzes: Quizzes, length: int) -> Iterator[str]:
    """Greedy answers to questions that are each asked alone."""
    import torch

    from vertebra.decode.call import generate

    features = quizzes.quiz.features(quizzes.job)
    for start in range(0, len(asked), AT_ONCE):
        some = asked[start : start + AT_ONCE]
        prompts = [quizzes.asking(number, question) for number, question in some]
        items = [dict(features(quizzes.extra(number))) if features else {} for number, _ in some]
        with torch.random.fork_rng(devices=[]):
            made = generate(model, model.collate(prompts, items, side="left"), max_new_tokens=length)
        yield from (text.strip() for text in made.text)
