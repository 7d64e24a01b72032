"""The synthetic task: its images show what its actions reach, and its prompts are what training saw."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.fresh import new_part, new_queries
from vertebra.model.model import Model
from vertebra.tasks.acting import slots_of
from vertebra.tasks.squares import BINS, COLORS, SIDE, SIZE, TOKENS, SquareEpisode, Squares, hand


@pytest.fixture(scope="module")
def model() -> Model:
    backbone = load_backbone("tiny-llama2", dtype="float32")
    grow_vocabulary(backbone, list(TOKENS))
    image = new_part(backbone, PatchEncoder(8, image_size=SIZE, patch_size=16))
    return Model(backbone, {"image": image, "action": new_queries(backbone, 2)})


def pixels(episode: SquareEpisode) -> Iterator[tuple[int, int]]:
    """Where the square's color is."""
    image = np.asarray(episode.image())
    ys, xs = np.nonzero((image == COLORS[episode.color]).all(-1))
    yield from zip(xs.tolist(), ys.tolist(), strict=True)


@given(st.integers(0, 2**20), st.integers(0, 1000))
def test_the_image_shows_where_the_right_action_goes(seed: int, number: int):
    episode = SquareEpisode(seed, number)
    found = np.array(list(pixels(episode)))
    assert SIDE - 1 <= len(np.unique(found[:, 0])) <= SIDE + 1
    assert np.abs(found.mean(0) + 0.5 - episode.center).max() <= 1.0
    for chunk in (1, 5):
        assert episode.reached(episode.actions(chunk))
    assert np.allclose(np.diff(episode.actions(5), axis=0), episode.actions(5)[0]), "equal steps from the middle"
    assert np.allclose(hand(episode.actions(3)[-1]), episode.center)
    assert episode.instruction == f"Reach the {episode.color} square."
    middles = (np.arange(BINS) + 0.5) / BINS * 2 - 1
    reached = [(x, y) for x in middles for y in middles if episode.reached(np.array([[x, y]]))]
    assert 1 <= len(reached) <= 9, "chance is at most 9 of 64"
    again = SquareEpisode(seed, number)
    assert (again.color, again.ground) == (episode.color, episode.ground)
    assert np.array_equal(again.actions(2), episode.actions(2))


def bins(episode: SquareEpisode) -> list[int]:
    """The bins that hold the square's middle, by division."""
    shares = (episode.center - SIDE / 2) / (SIZE - SIDE)
    return [min(int(share * BINS), BINS - 1) for share in shares]


def test_actions_are_supervised_and_prompts_are_their_beginnings(model: Model):
    squares = Squares(model, 4)
    for number, episode in enumerate(squares.episodes):
        sequence = squares.sequence(number)
        reply = model.backbone.tokenizer.convert_ids_to_tokens(sequence.ids[sequence.weight > 0].tolist())
        assert reply[:3] == ["<ACT>", *(f"<ACT:{bin}>" for bin in bins(episode))]
        prompt = squares.prompt(number)
        assert np.array_equal(prompt.ids, sequence.ids[: len(prompt)])
        assert prompt.ids[-1] == squares.ids[0]
        assert len(slots_of(prompt, "image")) == 4
        assert len(slots_of(sequence, "action")) == 0


def test_parallel_slots_have_the_bins_for_targets(model: Model):
    squares = Squares(model, 4, way="parallel")
    for number, episode in enumerate(squares.episodes):
        sequence = squares.sequence(number)
        at = slots_of(sequence, "action")
        assert sequence.target[at].tolist() == [squares.ids[1 + bin] for bin in bins(episode)]
        assert (sequence.weight[at] == 1).all()
        assert not set(sequence.ids[at].tolist()) & set(sequence.target[at].tolist()), "the answer is not in the input"


def test_shuffled_images_are_another_episodes(model: Model):
    squares, shuffled = Squares(model, 4), Squares(model, 4, shuffled=True)
    for number in range(4):
        shown = Image.open(io.BytesIO(shuffled.extra(number)["images"][0]))
        assert np.array_equal(np.asarray(shown), np.asarray(squares.episodes[(number + 1) % 4].image()))
        assert np.array_equal(squares.sequence(number).ids, shuffled.sequence(number).ids)
    others = [Squares(model, 4, seed=1), Squares(model, 5), Squares(model, 4, way="parallel"), shuffled]
    assert len({made.fingerprint() for made in (squares, *others)}) == 5
    assert Squares(model, 4).fingerprint() == squares.fingerprint()
