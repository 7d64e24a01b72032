"""Bins ⇄ ids: the original's formula beside ours, every bin there and back, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra.action.bins import Bins, openvla_bins, quantile_bins, quantile_edges, uniform_bins
from vertebra.action.tokens import action_tokens, token_ids
from vertebra.backbone.registry import load_backbone
from vertebra.errors import ConfigError, DataError, UnknownNameError

RNG = np.random.default_rng(0)


def all_schemes(dims: int) -> list[Bins]:
    """One of each, over ids in no particular order."""
    ids = RNG.permutation(np.arange(100, 400))[:64].tolist()
    edges = quantile_edges(np.tanh(RNG.normal(0, 0.7, (500, dims))), 64)
    return [
        openvla_bins(32000),
        openvla_bins(151643, count=100),
        uniform_bins(ids),
        uniform_bins(ids, ends="exact"),
        quantile_bins(ids, edges),
    ]


class Original:
    """OpenVLA's own tokenizer of actions, as arithmetic: its text of an id and back is the identity on a real vocabulary."""

    def __init__(self, vocabulary: int, count: int = 256) -> None:
        self.vocabulary = vocabulary
        self.bins = np.linspace(-1, 1, count)
        self.centers = (self.bins[:-1] + self.bins[1:]) / 2.0

    def encode(self, action):
        return self.vocabulary - np.digitize(np.clip(action, -1.0, 1.0), self.bins)

    def decode(self, ids):
        return self.centers[np.clip(self.vocabulary - ids - 1, a_min=0, a_max=self.centers.shape[0] - 1)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_the_originals_ids_and_numbers_on_485_samples(dtype):
    actions = RNG.normal(0, 0.8, (485, 6)).astype(dtype)
    actions[0], actions[1], actions[2] = -1, 1, 0
    ours, theirs = openvla_bins(32000), Original(32000)
    ids = ours.encode(actions)
    assert np.array_equal(ids, theirs.encode(actions))
    assert np.array_equal(ours.decode(ids), theirs.decode(ids))
    assert (ids[0, 0], ids[1, 0], ids[2, 0]) == (31999, 31744, 31872)


def test_the_originals_labels_on_485_samples():
    """What is learned: the ids as they stand in the sequence, BOS to EOS, of which those of the action alone count."""
    actions = RNG.uniform(-1.2, 1.2, (485, 6))
    ours, theirs = openvla_bins(32000), Original(32000)
    prompt, eos = [1, 512, 29901, 29871], 2
    for action, row in zip(actions, ours.encode(actions), strict=True):
        ids = [*prompt, *theirs.encode(action).tolist(), eos]
        labels = [-100] * (len(ids) - (len(action) + 1)) + ids[-(len(action) + 1) :]
        made = [*[-100] * len(prompt), *row.tolist(), eos]
        assert made == labels


def test_the_ends():
    bins = openvla_bins(32000)
    assert bins.decode(bins.encode([-1.0, 1.0])).tolist() == pytest.approx([-0.99607843, 0.99607843])
    exact = uniform_bins(range(10, 266), ends="exact")
    assert exact.decode(exact.encode([-1.0, 0.0, 1.0]))[[0, 2]].tolist() == [-1.0, 1.0]
    assert bins.allowed == tuple(range(31744, 32000))


@given(dims=st.sampled_from([1, 2, 7, 14, 64]), chunk=st.sampled_from([1, 8, 50]), seed=st.integers(0, 2**32 - 1))
def test_there_and_back_within_half_a_bin(dims, chunk, seed):
    actions = np.random.default_rng(seed).uniform(-1, 1, (chunk, dims))
    before = actions.copy()
    for bins in all_schemes(dims):
        ids = bins.encode(actions)
        assert ids.shape == actions.shape
        assert np.isin(ids, bins.ids).all()
        got = bins.decode(ids)
        borders = np.concatenate(
            [np.full((len(bins.borders), 1), -1.0), bins.borders, np.ones((len(bins.borders), 1))], 1
        )
        at = bins.bins_of(ids)
        width = np.take_along_axis(np.broadcast_to(np.diff(borders, axis=1), (dims, len(bins))), at.T, 1).T
        # the last bin of OpenVLA's has no width, and stands for its neighbor's middle
        half = np.maximum(width / 2, 2 / (len(bins) - 1) / 2 if bins.settings["scheme"] == "openvla" else 0)
        if bins.settings.get("ends") == "exact":
            half = np.full_like(actions, 1 / (len(bins) - 1))
        assert (np.abs(got - actions) <= half + 1e-12).all()
        assert np.array_equal(bins.encode(got)[at < len(bins) - 1], ids[at < len(bins) - 1])
    assert np.array_equal(actions, before)


@pytest.mark.parametrize("dims", [1, 3, 64])
def test_every_bin(dims):
    for bins in all_schemes(dims):
        every = np.repeat(bins.ids[:, None], dims, axis=1)
        numbers = bins.decode(every)
        back = bins.encode(numbers)
        kept = back == every
        if bins.settings["scheme"] == "openvla":
            assert kept[:-1].all()
            assert (back[-1] == every[-2]).all(), "its last bin says what its neighbor says, as the original does"
        else:
            assert kept.all()


@pytest.mark.parametrize(
    "name", ["tiny-llama2", "tiny-llama3", "tiny-qwen2.5", "tiny-gemma3", "tiny-phi2", "tiny-gpt2"]
)
def test_added_tokens_of_every_family(name):
    """The ids that a grown vocabulary gives, none of them special, none lost on the way."""
    from vertebra.backbone.vocabulary import grow_vocabulary

    backbone = load_backbone(name)
    special = {*backbone.tokenizer.all_special_ids, *backbone.eos_token_ids}
    grow_vocabulary(backbone, action_tokens(16))
    ids = token_ids(backbone.tokenizer.get_vocab(), action_tokens(16, opens=False))
    bins = uniform_bins(ids, special=special)
    actions = RNG.uniform(-1, 1, (50, 7))
    assert np.abs(bins.decode(bins.encode(actions)) - actions).max() <= 1 / 16 + 1e-12
    assert max(bins.allowed) < backbone.num_rows


def test_the_same_after_json():
    for bins in all_schemes(3):
        again = Bins.of(json.loads(json.dumps(bins.to_json())))
        assert np.array_equal(again.ids, bins.ids)
        assert np.array_equal(again.values, bins.values)
        assert np.array_equal(again.borders, bins.borders)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64])
def test_every_type(dtype):
    for bins in all_schemes(2):
        actions = np.array([[-1, 1], [0, 0]], dtype)
        assert np.array_equal(bins.encode(actions), bins.encode(actions.astype(np.float64)))
    for dtype in (np.int16, np.uint32, np.int64):
        assert openvla_bins(300).decode(np.array([299], dtype)).dtype == np.float64


def test_the_mean_of_a_distribution():
    for bins in all_schemes(2):
        sure = np.zeros((2, len(bins)))
        sure[:, 5] = 1.0
        assert np.allclose(bins.expected(sure), bins.decode(np.repeat(bins.ids[5], 2)))


def test_a_stray_token_is_no_number():
    bins = openvla_bins(32000)
    for stray in (31743, 32000, 2, -1):
        with pytest.raises(DataError, match=rf"\[{stray}\] are ids of no action bin"):
            bins.decode([31999, stray])
    with pytest.raises(DataError, match="whole numbers"):
        bins.decode([0.5])


def test_bad_numbers():
    bins = openvla_bins(32000)
    with pytest.raises(DataError, match=r"1 of 4 are NaN or infinite, the first at \[\[1, 0\]\]"):
        bins.encode([[0, 1], [float("nan"), 0]])
    for bad in ("left", [["a"]], [[1, 2], [3]], None):
        with pytest.raises(DataError, match="must be numbers"):
            bins.encode(bad)
    quantile = all_schemes(3)[-1]
    with pytest.raises(DataError, match=r"2 dimensions \(shape \(5, 2\)\); expected 3"):
        quantile.encode(np.zeros((5, 2)))
    with pytest.raises(DataError, match="no dimensions"):
        quantile.encode(0.0)


def test_ids_that_cannot_be():
    with pytest.raises(ConfigError, match="special tokens"):
        uniform_bins([1, 2, 3], special={2})
    with pytest.raises(ConfigError, match="special tokens"):
        openvla_bins(32000, special={2, 31999})
    with pytest.raises(ConfigError, match="the same id"):
        uniform_bins([1, 1])
    with pytest.raises(ConfigError, match="at least two"):
        uniform_bins([1])
    with pytest.raises(ConfigError, match="300 bins in a vocabulary of 256"):
        openvla_bins(256, count=300)
    with pytest.raises(ConfigError, match="ascend"):
        quantile_bins([1, 2], [[-1, 0.5, 0.2]])


def test_damaged_records():
    with pytest.raises(UnknownNameError, match="Did you mean `uniform`"):
        Bins.of({"scheme": "unifrom"})
    with pytest.raises(UnknownNameError, match="vocabulary"):
        Bins.of({"scheme": "openvla", "vocab": 1})
    with pytest.raises(ConfigError, match="lack vocabulary"):
        Bins.of({"scheme": "openvla"})
    with pytest.raises(UnknownNameError, match="ends"):
        uniform_bins([1, 2], ends="open")  # type: ignore[arg-type]
