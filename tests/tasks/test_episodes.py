"""Episodes as samples: what training reads is what a policy is asked, chunks end where episodes do, sets are told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.episodes.made import NUMBERS, TOP, WRIST, episode_of
from tests.tasks.robots import LENGTHS, SENTENCES, episodes, small_set
from vertebra.episodes import EpisodeWriter, open_episodes
from vertebra.errors import ConfigError, DataError, UnknownNameError
from vertebra.policies.observation import Observation
from vertebra.policies.policy import Policy
from vertebra.sequence.roles import NO_VALUE, VALUE_TARGET
from vertebra.tasks.acting import SEGMENT, WAYS, slots_of
from vertebra.tasks.demonstrations import Demonstrations, frames_needed, seen_at
from vertebra.tasks.drawn_episodes import SENTENCES as SENTENCES_DRAWN
from vertebra.training.building import build_model
from vertebra.training.data import build_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("sets") / "cubes")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))


def made(config: Any) -> tuple[Any, Any]:
    """The model of a config, and its data."""
    model = build_model(config)
    return model, build_data(config, model)


def seen(block: np.ndarray) -> np.ndarray:
    """Who sees whom."""
    at = np.arange(len(block))
    return (at[:, None] >= at) | ((block[:, None] == block) & (block > 0))


@pytest.mark.parametrize("head", WAYS)
@pytest.mark.parametrize("history", [0, 2])
def test_training_reads_what_a_policy_is_asked(folder: Path, head: str, history: int):
    model, data = made(episodes(folder, head, options={"history": history, "every": 2}))
    samples, policy = data.train, Policy(model)
    assert isinstance(samples, Demonstrations)
    read = open_episodes(folder)
    for index in (0, len(samples) // 2, len(samples) - 1):
        number, frame = samples._at[index]
        shown = samples.shown[number]
        moments = seen_at(int(frame), policy.record)
        images = {name: read.frames(shown.episode, key, moments) for name, key in (("top", TOP), ("wrist", WRIST))}
        earlier = [{name: found[at] for name, found in images.items()} for at in range(history)]
        now = Observation(
            images={name: found[-1] for name, found in images.items()}, proprio=shown.state[frame], history=earlier
        )
        proprio = policy._proprio(now, policy.statistics())
        asked = policy.prompts.row(now, shown.sentence, proprio)
        trained = samples.sequence(index)
        opened = samples.way.opened(trained, policy.record.lead)
        for name in ("ids", "slot", "position"):
            assert np.array_equal(getattr(asked.sequence, name), getattr(opened, name)), name
        assert np.array_equal(seen(asked.sequence.block), seen(opened.block))
        assert asked.sequence.segments == opened.segments
        items = data.collator.features(samples.extra(index))
        assert set(asked.features) | ({SEGMENT} if not samples.way.by_tokens else set()) == set(items)
        for name, values in asked.features.items():
            assert np.array_equal(values, items[name].astype(values.dtype)), name


@pytest.mark.parametrize("head", WAYS)
def test_chunks_end_where_episodes_do(folder: Path, head: str):
    options = {} if head != "l1" else {"one_slot": False}
    _, data = made(episodes(folder, head, options=options))
    samples = data.train
    entry = samples.record.statistics["cubes"]["action"]
    low, high = np.array(entry["q01"]), np.array(entry["q99"])
    seen = set()
    for index in range(len(samples)):
        number, frame = samples._at[index]
        shown = samples.shown[number]
        sequence, extra = samples.sequence(index), samples.extra(index)
        for step in range(3):
            there = frame + step < len(shown)
            seen.add(there)
            expected = np.clip(2 * (shown.actions[min(frame + step, len(shown) - 1)] - low) / (high - low) - 1, -1, 1)
            if not samples.way.by_tokens:
                value = extra[SEGMENT][0, step]
                assert np.allclose(value, expected if there else NO_VALUE, atol=1e-5)
            if head in ("tokens", "parallel", "l1"):
                with_system = head == "tokens" and np.flatnonzero(np.isin(sequence.ids, samples.bins.allowed))
                at = (with_system if head == "tokens" else slots_of(sequence, SEGMENT))[2 * step : 2 * step + 2]
                assert (sequence.weight[at] == float(there)).all()
                if head == "l1":
                    assert (sequence.target[at] == VALUE_TARGET).all()
                elif there:
                    assert np.abs(samples.bins.decode(sequence.target[at]) - expected).max() <= 1 / 8 + 1e-6
        slots = slots_of(sequence, SEGMENT)
        rest = np.setdiff1d(np.flatnonzero(sequence.weight), slots if head != "tokens" else np.arange(len(sequence)))
        assert not len(rest), "nothing else is learned"
    assert seen == {True, False}


def test_whole_episodes_are_held_out_the_same_every_time(folder: Path):
    _, data = made(episodes(folder))
    train, apart = ({one.episode for one in part.shown} for part in (data.train, data.held_out))
    assert train | apart == {0, 1, 2, 3}
    assert not train & apart
    assert {one.sentence for one in data.held_out.shown} == set(SENTENCES), "one of each"
    _, again = made(episodes(folder, seed=5))
    assert {one.episode for one in again.held_out.shown} == apart
    _, all_of_it = made(episodes(folder, data={"held_out": 0.0}))
    assert all_of_it.held_out is None
    assert len(all_of_it.train) == sum(LENGTHS)
    _, skipped = made(episodes(folder, options={"skip": [0, 1]}, data={"held_out": 0.0}))
    assert {one.episode for one in skipped.train.shown} == {2, 3}


def test_every_nth_frame_and_the_frames_that_are_kept(folder: Path):
    _, data = made(episodes(folder, options={"every": 4, "history": 1, "execute": 2}, data={"held_out": 0.0}))
    found = {(one.episode, int(frame)) for number, frame in data.train._at for one in [data.train.shown[number]]}
    assert found == {(number, frame) for number, length in enumerate(LENGTHS) for frame in range(0, length, 4)}
    assert frames_needed(12, 4, data.train.record) == [0, 2, 4, 6, 8]
    assert seen_at(1, data.train.record) == [0, 1]


def test_workers_give_the_same_batches_and_epochs_other_looks(folder: Path):
    options = {"shift": 2, "color": 0.2, "crop": 0.1}
    model, data = made(episodes(folder, options=options))
    _, beside = made(episodes(folder, options=options, data={"workers": 2}))
    epochs = []
    for loaders in ((data.loader(4), beside.loader(4)),):
        for _ in range(2):
            pixels = []
            for one, two in zip(*loaders, strict=True):
                assert one["input_ids"].equal(two["input_ids"])
                for name, block in one["features"].items():
                    assert block["values"].equal(two["features"][name]["values"]), name
                pixels.append(int(one["features"]["image:top"]["values"].long().sum()))
            epochs.append(pixels)
    assert sorted(epochs[0]) != sorted(epochs[1]), "each epoch draws anew"
    plain = data.held_out.extra(0)["images"]["image:top"]
    prepared = model.prepare(
        {"image:top": list(open_episodes(folder).frames(data.held_out.shown[0].episode, TOP, [0]))}
    )
    assert np.array_equal(plain, prepared["image:top"]), "evaluation sees images as they are"


def test_differences_come_out_absolute(folder: Path):
    model, data = made(episodes(folder, options={"frame": "relative", "normalization": "min-max"}))
    samples, policy = data.train, Policy(model)
    index = next(i for i, (n, f) in enumerate(samples._at) if f + 3 <= len(samples.shown[n]))
    number, frame = samples._at[index]
    shown = samples.shown[number]
    values = samples.extra(index)[SEGMENT][0].astype(np.float64)
    from vertebra.action.normalization import unnormalize

    units = unnormalize(values, policy.statistics().action, "min-max")
    assert np.allclose(units + shown.state[frame, :2], shown.actions[frame : frame + 3], atol=1e-4)


def test_a_mixture_has_statistics_of_each_and_weights(folder: Path, tmp_path: Path):
    other = small_set(tmp_path / "other", (4, 6), fps=5)
    mix = {"near": {"path": str(folder), "weight": 3.0}, "far": {"path": str(other)}}
    model, data = made(episodes(None, data={"mix": mix}))
    assert sorted(Policy(model).keys) == ["far", "near"]
    assert {data.train.name_of(index) for index in range(len(data.train))} == {"near", "far"}
    order = data.train.order(0, 0)
    early = [data.train.name_of(int(index)) for index in order[:8]]
    assert early.count("near") > early.count("far"), "drawn by weight"


def test_sets_that_one_policy_learns_as_if_they_were_one(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Steps of another length, and numbers of other names, are allowed and reported; what is alike is not."""
    other, alike = small_set(tmp_path / "other", (4, 6), fps=5), small_set(tmp_path / "alike", (4, 6))
    info = json.loads((other / "meta" / "info.json").read_text())
    info["features"]["action"]["names"] = ["y", "x"]
    (other / "meta" / "info.json").write_text(json.dumps(info))
    for second, expected in ((alike, 0), (other, 2)):
        caplog.clear()
        made(episodes(None, data={"mix": {"near": {"path": str(folder)}, "far": {"path": str(second)}}}))
        found = [one.getMessage() for one in caplog.records if "as if they were the same" in one.getMessage()]
        assert len(found) == expected
    assert found[0].startswith("`far` has 5 frames a second, and `near` has 10")
    assert "`far` has y, x as the dimensions of `action`, and `near` has x, y" in found[1]


def test_a_blind_policy_has_no_images(folder: Path):
    model, data = made(episodes(folder, options={"cameras": []}, model__image=None))
    assert list(model.sizes) == ["proprio", "action"]
    assert data.train.extra(0)["images"] == {}
    chunk = Policy(model).act({"proprio": [0.0, 0.0, 0.0]}, SENTENCES[0])
    assert chunk.shape == (3, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cameras": ["tap"]}, r"camera `tap`.*top"),
        ({"state": ["observation.stat"]}, r"observation\.stat.*observation\.state"),
        ({"action": "acton"}, r"acton.*action"),
        ({"skip": [0, 1, 2, 3]}, r"no episode to learn from; 4 are left out"),
        ({"execute": 4}, r"execute is 4, and a chunk has 3 actions"),
        ({"hiden": 3}, r"hiden.*hidden"),
    ],
)
def test_what_a_set_does_not_have_is_named(folder: Path, options: dict[str, Any], message: str):
    with pytest.raises((UnknownNameError, DataError, ConfigError), match=message):
        made(episodes(folder, options=options))


def test_bad_numbers_other_robots_and_missing_parts_are_refused(folder: Path, tmp_path: Path):
    with EpisodeWriter(tmp_path / "bad", fps=10, cameras={TOP: (16, 16)}, numbers=NUMBERS, codec="image") as writer:
        for seed in range(2):
            numbers, images = episode_of(4, seed, {TOP: (16, 16)})
            writer.add("push", numbers, images)
    data = {"mix": {"a": {"path": str(folder)}, "b": {"path": str(tmp_path / "bad")}}}
    with pytest.raises(DataError, match=r"`b` has actions of 2 numbers.*cameras \['top'\].*\['top', 'wrist'\]"):
        made(episodes(None, data=data))
    with pytest.raises(ConfigError, match=r"has no image part for image:top.*make it blind"):
        made(episodes(folder, model__image=None))
    with pytest.raises(DataError, match="no set of episodes"):
        made(episodes(tmp_path))
    with pytest.raises(ConfigError, match=r"hidden: of `l1` alone"):
        episodes(folder, "flow", options={"hidden": 8})


def test_a_recipe_without_a_set_says_where_one_comes_from():
    with pytest.raises(ConfigError, match="vertebra sim collect"):
        build_model(episodes(None))


def test_what_is_drawn_for_a_tiny_run_can_be_learned(tmp_path: Path):
    config = episodes(None)
    data = config.task.tiny(config.data)
    read = open_episodes(data.path)
    assert [read.sentence(one.index) for one in read.episodes[:2]] == list(SENTENCES_DRAWN)
    assert all(np.asarray(read.columns(one.index, ["action"])["action"]).std() > 0 for one in read.episodes)
    assert config.task.tiny(data) is data, "a set that is named is not replaced"
