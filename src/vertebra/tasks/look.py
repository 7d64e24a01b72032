"""Kind `look`: questions about colored shapes in a picture, which nothing but the picture answers.

    ▣▣…▣ What color is the circle?          red            color, shape     of one that is the only one of its kind
         How many are blue?                 two            count
         Is the red circle left of …?       no             relation
         What is where?                     top left red circle, middle blue cross

The last question ends every training row and is no held-out one: its answer names everything, so that a row teaches far
more than a few words could. In front of the others it would teach them to read its answer, and not the picture.

With `slots` the slots themselves are asked for a word, the color or the shape of what they show, which costs no position:
so much is learned of a picture that the language model can begin to look.

Pictures are drawn by Pillow. Four pairs of color and shape are in no training picture; in every other held-out picture
one of them is. With `shuffled_images` each is asked about another one's picture: what is right then, is guessed.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw

from vertebra.config import Amount, Bound, require_bounds
from vertebra.errors import ConfigError
from vertebra.tasks.quiz import Item, Quiz, QuizConfig, QuizQuestion

COLORS = {
    "red": (215, 40, 40), "green": (30, 160, 60), "blue": (45, 80, 220), "yellow": (235, 205, 40),
    "purple": (150, 50, 180), "white": (245, 245, 245),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "cross")
UNSEEN = frozenset({("red", "triangle"), ("blue", "circle"), ("yellow", "cross"), ("purple", "square")})
NUMBERS = ("zero", "one", "two", "three", "four")
PLACES = (
    "top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip
SIZE, ACROSS = 112, 3  # of a picture in pixels, and how many places it has side by side
MOST = 4
"""Questions about a picture, but for the last."""
NEAR, EMPTY = 0.75, 0.2
"""How near a thing's middle is to that of a part that shows it, in parts; and how much an empty part counts."""


@dataclass(frozen=True, kw_only=True)
class LookConfig(QuizConfig):
    """What is drawn, and how much of it is asked."""

    things: Annotated[int, Bound(least=1, most=4)] = 4
    """The most things in a picture."""
    questions: Annotated[int, Bound(least=0, most=4)] = 4
    """Questions about a training picture, before the last one that asks for everything."""
    slots: Amount = 0.0
    """How much the word of a slot counts beside one of an answer; 0: slots predict nothing."""

    def __post_init__(self) -> None:
        require_bounds(self)


class Look(Quiz):
    """Colors, shapes, counts, relations."""

    name: ClassVar[str] = "look"
    settings: ClassVar[tuple[str, ...]] = ("count", "shuffled_images", "block")
    needs: ClassVar[tuple[str, ...]] = ("image",)
    Options: ClassVar[type | None] = LookConfig
    sorts: ClassVar[tuple[str, ...]] = ("color", "shape", "count", "relation")
    longest: ClassVar[int] = 4

    def item(self, seed: int, number: int, options: Any, *, held_out: bool) -> Item:
        rng = np.random.default_rng([seed, number])
        scene = LookScene.drawn(rng, unseen=held_out and number % 2 == 1, most=options.things)
        last = () if held_out else (scene.about_all(),)
        count = MOST if held_out else options.questions
        return Item(questions=(*_chosen(scene, count, rng), *last), picture=scene.picture(), scene=scene)

    def slot_words(self, item: Item, slots: int, options: Any) -> Sequence[tuple[str, float]]:
        side = math.isqrt(slots)
        if not options.slots:
            return ()
        if side**2 != slots:
            raise ConfigError(f"data.options.slots: a picture has {slots} slots here, which are no square of them")
        return [(word, counts * options.slots) for word, counts in item.scene.words(side)]


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One shape."""

    color: str
    shape: str
    x: int
    y: int
    reach: int
    """Half its height, in pixels of a picture twice as large."""
    row: int
    column: int

    @property
    def kind(self) -> tuple[str, str]:
        return self.color, self.shape

    def __str__(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True, kw_only=True)
class LookScene:
    """One to four things in places of their own, on a dark ground."""

    things: tuple[Thing, ...]
    ground: tuple[int, int, int]

    @classmethod
    def drawn(cls, rng: np.random.Generator, *, unseen: bool, most: int = 4) -> LookScene:
        """`most`: things; `unseen`: its first thing is of a kind that no other scene has."""
        places = rng.permutation(ACROSS**2)[: rng.integers(1, most + 1)]
        things = [_thing(rng, int(place), unseen=unseen and not at) for at, place in enumerate(places)]
        red, green, blue = (int(value) for value in rng.integers(60, 110, 3))
        return cls(things=tuple(things), ground=(red, green, blue))

    def picture(self) -> bytes:
        """As a PNG; drawn twice as large, so that edges are soft."""
        image = Image.new("RGB", (2 * SIZE, 2 * SIZE), self.ground)
        pen = ImageDraw.Draw(image)
        for thing in self.things:
            _DRAW[thing.shape](pen, 2 * thing.x, 2 * thing.y, thing.reach, COLORS[thing.color])
        file = io.BytesIO()
        image.resize((SIZE, SIZE), Image.Resampling.LANCZOS).save(file, "PNG")
        return file.getvalue()

    def words(self, side: int) -> Iterator[tuple[str, float]]:
        """What each of `side` × `side` parts of the picture shows: one of the words for it, by turns, or that it is
        empty, which counts less, for most parts are."""
        part = SIZE / side
        for row, column in itertools.product(range(side), repeat=2):
            x, y = (column + 0.5) * part, (row + 0.5) * part
            near = min(self.things, key=lambda thing: max(abs(thing.x - x), abs(thing.y - y)))
            if max(abs(near.x - x), abs(near.y - y)) < NEAR * part:
                yield (near.color if (row + column + near.x) % 2 else near.shape), 1.0
            else:
                yield "nothing", EMPTY

    def about_all(self) -> QuizQuestion:
        """What is where, in the order of reading."""
        things = sorted(self.things, key=lambda thing: (thing.row, thing.column))
        answer = ", ".join(f"{PLACES[thing.row * ACROSS + thing.column]} {thing}" for thing in things)
        return QuizQuestion(text="What is where?", answer=answer, sort="all")

    def about_one(self) -> Iterator[QuizQuestion]:
        """Color and shape of what is the only one of its shape or color."""
        shapes, colors = [thing.shape for thing in self.things], [thing.color for thing in self.things]
        for thing in self.things:
            if shapes.count(thing.shape) == 1:
                yield QuizQuestion(text=f"What color is the {thing.shape}?", answer=thing.color, sort="color")
            if colors.count(thing.color) == 1:
                yield QuizQuestion(text=f"What shape is the {thing.color} one?", answer=thing.shape, sort="shape")

    def about_counts(self) -> Iterator[QuizQuestion]:
        yield QuizQuestion(text="How many shapes are there?", answer=NUMBERS[len(self.things)], sort="count")
        colors = [thing.color for thing in self.things]
        for color in COLORS:
            yield QuizQuestion(text=f"How many are {color}?", answer=NUMBERS[colors.count(color)], sort="count")

    def about_places(self) -> Iterator[QuizQuestion]:
        kinds = [thing.kind for thing in self.things]
        single = [thing for thing in self.things if kinds.count(thing.kind) == 1]
        for a in single:
            for b in single:
                for word, first, second in (("left of", a.column, b.column), ("above", a.row, b.row)):
                    if first != second:
                        answer = "yes" if first < second else "no"
                        yield QuizQuestion(text=f"Is the {a} {word} the {b}?", answer=answer, sort="relation")


def _thing(rng: np.random.Generator, place: int, *, unseen: bool) -> Thing:
    color, shape = str(rng.choice(list(COLORS))), str(rng.choice(SHAPES))
    while ((color, shape) in UNSEEN) != unseen:
        color, shape = str(rng.choice(list(COLORS))), str(rng.choice(SHAPES))
    row, column = divmod(place, ACROSS)
    dx, dy = rng.integers(-3, 4, 2).tolist()
    x, y = (round((at + 0.5) * SIZE / ACROSS) for at in (column, row))
    return Thing(color=color, shape=shape, x=x + dx, y=y + dy, reach=int(rng.integers(20, 31)), row=row, column=column)


def _chosen(scene: LookScene, most: int, rng: np.random.Generator) -> Iterator[QuizQuestion]:
    """Some questions, of each sort in turn while there are any; half of the counts are of colors that are there."""
    counts = list(scene.about_counts())
    there = [question for question in counts if question.answer != NUMBERS[0]]
    absent = [question for question in counts if question.answer == NUMBERS[0]]
    pools = [list(scene.about_one()), [*there, *absent[: len(there) // 2]], list(scene.about_places())]
    turn = int(rng.integers(len(pools)))
    while most and any(pools):
        pool = pools[turn % len(pools)]
        turn += 1
        if pool:
            most -= 1
            yield pool.pop(int(rng.integers(len(pool))))


def _circle(pen: ImageDraw.ImageDraw, x: int, y: int, reach: int, color: tuple[int, int, int]) -> None:
    pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=color)


def _square(pen: ImageDraw.ImageDraw, x: int, y: int, reach: int, color: tuple[int, int, int]) -> None:
    half = reach - 3
    pen.rectangle((x - half, y - half, x + half, y + half), fill=color)


def _triangle(pen: ImageDraw.ImageDraw, x: int, y: int, reach: int, color: tuple[int, int, int]) -> None:
    pen.polygon([(x, y - reach), (x - reach, y + reach - 4), (x + reach, y + reach - 4)], fill=color)


def _cross(pen: ImageDraw.ImageDraw, x: int, y: int, reach: int, color: tuple[int, int, int]) -> None:
    for wide, high in ((reach // 3, reach), (reach, reach // 3)):
        pen.rectangle((x - wide, y - high, x + wide, y + high), fill=color)


_DRAW = {"circle": _circle, "square": _square, "triangle": _triangle, "cross": _cross}
