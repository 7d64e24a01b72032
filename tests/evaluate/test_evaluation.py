"""The closed loop on a toy: what is counted, arms on the same seeds, resuming, workers, batches, films, the page."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.evaluate.toys import FACTS, Blind, Line, Looks, LooksAtMany
from vertebra.errors import ConfigError, DataError, UnknownNameError, VertebraError
from vertebra.evaluate import EpisodeRecord, EvaluationSettings, evaluate_policy, evaluation_page
from vertebra.evaluate.actor import Actor, options_for
from vertebra.evaluate.arms import arms_of, swapped_with
from vertebra.evaluate.films import FRAMES, as_gif, as_mp4, replayed
from vertebra.evaluate.records import packed, place, read_record
from vertebra.evaluate.results import Results
from vertebra.evaluate.rollout import Live, run
from vertebra.simulate import episode_seed


def settings(**changes) -> EvaluationSettings:
    return EvaluationSettings(**{"tasks": ("right", "left"), "episodes": 14, "seed": 3, **changes})


def evaluated(out: Path, policy=None, *, films=False, **changes):
    return evaluate_policy(policy or Looks(), settings(**changes), out, films=films)


def live(seed: int, task: str = "right", words: str | None = None, *, frozen: bool = False, **options) -> Live:
    line = Line(task, **options)
    words = words or line.instruction
    return Live(simulation=line, arm="policy", task=task, number=0, seed=seed, instruction=words, frozen=frozen)


def plainly(policy: Looks, seed: int, task: str, words: str) -> tuple[bool, int]:
    """The loop, once more: (success, steps)."""
    line = Line(task)
    line.reset(seed)
    policy.reset()
    while True:
        for action in policy.act({"images": line.look(), "proprio": line.state()}, words):
            outcome = line.step(action)
            if outcome.success or outcome.ended:
                return outcome.success, line.steps


def test_the_loop_is_the_plain_one():
    for policy in (Looks(), Blind()):
        for seed in range(9):
            for words in ("go right", "go left"):
                (made,) = run(Actor(policy), [live(seed, "right", words)])
                assert (made.success, made.steps) == plainly(policy, seed, "right", words)
                assert made.decisions == len(made.milliseconds) == -(-made.steps // 3)
                assert made.carried_out().shape == (made.steps, 1)


@pytest.mark.parametrize("execute", [1, 2, 3, 4])
def test_as_many_actions_of_a_chunk_are_carried_out_as_asked(execute: int):
    one = live(3)  # four places away
    (made,) = run(Actor(Looks(), execute=execute), [one])
    assert made.steps == 4
    assert one.simulation.looks == made.decisions == -(-4 // min(execute, 3))


def test_a_frozen_image_is_looked_at_once():
    one = live(5, frozen=True)
    (made,) = run(Actor(Looks()), [one])
    assert one.simulation.looks == 1
    assert made.decisions == 2
    assert one.images["top"][0, 0, 0] == 0


def test_failures_of_the_simulator_are_apart(tmp_path):
    results = evaluated(tmp_path / "out", options={"breaks": 2})
    (arm,) = results.arms
    broken = [one for one in results.records if one.broken]
    assert arm.broken == len(broken) > 3
    assert all(one.seed % 2 == 0 and not one.success and one.broken == "it fell over" for one in broken)
    assert arm.mean.episodes == 28 - len(broken)
    assert arm.mean.rate == 1.0, "what the simulator failed in counts for nothing"


def test_what_a_policy_refuses_is_lost_and_reported():
    class Refuses(Looks):
        def act(self, observation, instruction):
            if observation["images"]["top"][0, 0, 0] >= 3:
                raise DataError("3 of 8 numbers of the action are NaN or infinite")
            return super().act(observation, instruction)

    (made,) = run(Actor(Refuses()), [live(6)])
    assert (made.success, made.steps, made.broken) == (False, 3, None)
    assert "NaN" in made.refused

    class Empty(Looks):
        def act(self, observation, instruction):
            return np.zeros((0, 1))

    (made,) = run(Actor(Empty()), [live(6)])
    assert made.refused == "it gave no action"


def test_one_action_without_a_chunk_is_one():
    class Single(Looks):
        def act(self, observation, instruction):
            return super().act(observation, instruction)[0]

    (made,) = run(Actor(Single()), [live(2)])
    assert (made.success, made.decisions) == (True, 3)


@pytest.mark.parametrize("robots", [1, 2, 3, 5])
def test_robots_side_by_side_are_as_each_alone(robots: int):
    policy = LooksAtMany()
    made = run(Actor(policy), [live(seed, breaks=5) for seed in range(robots)])
    alone = [run(Actor(Looks()), [live(seed, breaks=5)])[0] for seed in range(robots)]
    assert [one.same for one in made] == [one.same for one in alone]
    assert policy.began == list(range(robots))
    assert policy.asked[0] == tuple(range(robots))
    assert all(len(names) < robots for names in policy.asked[1:] if robots > 1) or robots == 1


def test_a_refusal_among_several_is_that_robots_alone():
    class Refuses(LooksAtMany):
        def act_many(self, observations, instructions, *, robots):
            if 1 in robots:
                raise DataError("robot 1: beyond everything")
            return super().act_many(observations, instructions, robots=robots)

    made = run(Actor(Refuses()), [live(seed) for seed in range(3)])
    assert [one.success for one in made] == [True, False, True]
    assert [one.refused is None for one in made] == [True, False, True]


def test_arms_run_on_the_same_seeds_and_change_one_thing(tmp_path, monkeypatch):
    monkeypatch.setattr("vertebra.interop.acting.policy", lambda name, settings: {"blind-folder": Blind()}[name])
    results = evaluated(tmp_path / "out", arms=("swapped", "paraphrase", "frozen", "chunk=1", "blind=blind-folder"))
    by = {arm.arm.name: arm for arm in results.arms}
    assert list(by) == ["policy", "swapped", "paraphrase", "frozen", "chunk-1", "blind"]
    seeds = {name: [one.seed for one in results.records if one.arm == name] for name in by}
    assert all(found == seeds["policy"] for found in seeds.values())
    assert seeds["policy"][:14] == [episode_seed("evaluate", "right", 3, n) for n in range(14)]
    assert by["policy"].mean.rate == 1.0
    assert by["swapped"].mean.rate == 0.0
    assert by["swapped"].instructions == {"right": "go left", "left": "go right"}
    assert by["swapped"].paired.only_policy == 28
    assert by["swapped"].paired.p < 1e-6
    assert {one.instruction for one in results.records if one.arm == "paraphrase"} == {
        "move right", "walk right", "move left", "walk left"
    }  # fmt: skip
    assert by["frozen"].mean.rate == 1.0  # the place does not move
    blind = by["blind"]
    assert 0 < blind.mean.rate < 0.9
    assert blind.paired.difference == pytest.approx(1 - blind.mean.rate)
    assert by["chunk-1"].milliseconds is not None
    decisions = {name: sum(one.decisions for one in results.records if one.arm == name) for name in by}
    assert decisions["chunk-1"] > 1.5 * decisions["policy"]
    tasks = blind.paired_tasks["right"], blind.paired_tasks["left"]
    assert sum(one.only_policy for one in tasks) == blind.paired.only_policy


def test_smoothness_is_the_mean_change_between_actions():
    rng = np.random.default_rng(0)
    asked = EvaluationSettings(tasks=("right",), episodes=3)
    actions = [rng.normal(size=(steps, 4)).astype(np.float32) for steps in (1, 7, 30)]
    records = [
        EpisodeRecord(
            arm="policy", task="right", number=n, seed=n, instruction="go", success=True, steps=len(one), decisions=1,
            actions=packed(list(one)),
        )
        for n, one in enumerate(actions)
    ]  # fmt: skip
    arms = arms_of("", [FACTS["right"]])
    slow = [abs(one[n + 1, d] - one[n, d]) for one in actions for n in range(len(one) - 1) for d in range(4)]
    assert Results.of("p", asked, arms, records).arms[0].change == pytest.approx(sum(slow) / len(slow), rel=1e-5)
    assert Results.of("p", asked, arms, records[:1]).arms[0].change is None


def test_swapped_words_are_the_partners_or_the_next_tasks():
    facts = [FACTS["alone"], FACTS["right"]]
    assert swapped_with(FACTS["right"], facts).name == "left"
    assert swapped_with(FACTS["alone"], facts).name == "right"


def test_wrong_arms():
    pair, alone = [FACTS["right"], FACTS["left"]], [FACTS["alone"]]
    with pytest.raises(UnknownNameError, match="Did you mean `swapped`"):
        arms_of("swaped", pair)
    for wrong, message in (
        ("chunk=0", "chunk=1"),
        ("ensemble=much", "ensemble=0.01"),
        ("ensemble=-1", "ensemble=0.01"),
        ("ensemble=nan", "ensemble=0.01"),
        ("=x", "NAME=MODEL"),
        ("policy=x", "two arms are called policy"),
        ("frozen,frozen", "two arms"),
        ("../up=x", "cannot hold `/`"),
        ("swapped=dir", "`swapped` takes no value"),
        ("frozen=dir", "`frozen` takes no value"),
    ):
        with pytest.raises(ConfigError, match=message):
            arms_of(wrong, pair)
    with pytest.raises(ConfigError, match="no other words"):
        arms_of("paraphrase", alone)
    with pytest.raises(ConfigError, match="shares its scene with no task"):
        arms_of("swapped", alone)
    assert [arm.name for arm in arms_of(" swapped , chunk=8,", pair)] == ["policy", "swapped", "chunk-8"]


def test_what_was_stopped_goes_on_and_comes_to_the_same(tmp_path):
    whole = evaluated(tmp_path / "whole")

    class Stops(Looks):
        def reset(self):
            if self.resets == 9:
                raise KeyboardInterrupt
            super().reset()

    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path / "out", Stops())
    kept = sorted((tmp_path / "out" / "episodes").rglob("*.json"))
    assert len(kept) == 9
    before = {path: path.read_bytes() for path in kept}
    Stops.__name__ = Looks.__name__ = "Looks"
    (tmp_path / "out" / "evaluation.json").write_text((tmp_path / "whole" / "evaluation.json").read_text())
    policy = Looks()
    results = evaluated(tmp_path / "out", policy)
    assert policy.resets == 28 - 9
    assert {path: path.read_bytes() for path in kept} == before
    assert [one.same for one in results.records] == [one.same for one in whole.records]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "episodes", "evaluation.json", "results.json", "report.html"
    }  # fmt: skip


def test_another_evaluation_in_the_folder_is_refused(tmp_path):
    evaluated(tmp_path / "out", episodes=2)
    with pytest.raises(ConfigError, match=r"holds another evaluation \(episodes: there 2, now 3; seed: there 3, now 4"):
        evaluated(tmp_path / "out", episodes=3, seed=4)
    with pytest.raises(ConfigError, match="the policies"):
        evaluated(tmp_path / "out", Blind(), episodes=2)
    path = place(tmp_path / "out", "policy", "right", 0)
    path.write_text("{")
    with pytest.raises(DataError, match=r"no record of an episode.*Delete it"):
        read_record(tmp_path / "out", "policy", "right", 0, seed=0)
    for wrong, message in (("{", "not valid JSON"), ("[]", "holds a list"), ("{}", "not what an evaluation leaves")):
        (tmp_path / "out" / "evaluation.json").write_text(wrong)
        with pytest.raises(VertebraError, match=message):
            evaluated(tmp_path / "out", episodes=2)


def test_wrong_policies_and_settings(tmp_path):
    with pytest.raises(ConfigError, match=r"act.observation, instruction. and reset"):
        evaluated(tmp_path / "out", object())
    with pytest.raises(ConfigError, match="an object lives in this process"):
        evaluate_policy(Looks(), settings(), tmp_path / "out", workers=2)
    with pytest.raises(ConfigError, match="no task is named"):
        settings(tasks=())
    with pytest.raises(ConfigError, match="named twice"):
        settings(tasks=("right", "right"))
    with pytest.raises(ConfigError, match="episodes"):
        settings(episodes=0)
    with pytest.raises(UnknownNameError, match="Did you mean `right`"):
        evaluated(tmp_path / "out", tasks=("rigth",))
    assert not (tmp_path / "out").exists()


def test_a_task_whose_name_has_its_suites_before_it(tmp_path):
    results = evaluated(tmp_path / "out", Blind(), films=True, tasks=("line/right", "left"))
    films = {path.relative_to(tmp_path / "out" / "films").as_posix() for path in (tmp_path / "out").rglob("*.mp4")}
    assert {name.rpartition("-")[0].rpartition("-")[0] for name in films} == {"line/right", "left"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<video") == len(films) >= 3
    again = evaluated(tmp_path / "out", Blind(), films=True, tasks=("line/right", "left"))
    assert again.to_json() == results.to_json()


def test_films_are_the_episodes_once_more(tmp_path):
    results = evaluated(tmp_path / "out", Blind(), films=True, tasks=("right",))
    files = {path.name for path in (tmp_path / "out" / "films").iterdir()}
    wins = [one.number for one in results.records if one.success]
    losses = [one.number for one in results.records if not one.success]
    names = (f"right-{wins[0]}-success", f"right-{losses[0]}-failure")
    assert files == {f"{name}.{kind}" for name in names for kind in ("gif", "mp4")}
    with Image.open(tmp_path / "out" / "films" / f"{names[1]}.gif") as film:
        assert 1 < film.n_frames <= 13  # the beginning, and twelve steps; equal ones are one
        assert film.info["loop"] == 0


def test_a_long_film_has_few_frames_and_its_end():
    record = EpisodeRecord(
        arm="policy", task="right", number=0, seed=0, instruction="", success=False, steps=400, decisions=1,
        actions=packed([np.zeros(1)] * 400),
    )  # fmt: skip
    frames = replayed(Line("right", limit=400), record)
    assert len(frames) <= FRAMES + 2
    assert frames.dtype == np.uint8
    av = pytest.importorskip("av")
    with av.open(io.BytesIO(as_mp4(frames))) as film:
        decoded = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(decoded) == len(frames) + 15
    assert np.abs(decoded[0].astype(int) - frames[0]).mean() < 6
    with Image.open(io.BytesIO(as_gif(frames))) as gif:
        assert gif.size == (frames.shape[2], frames.shape[1])


def test_the_page_holds_everything_and_asks_for_nothing(tmp_path):
    class Odd(Looks):
        pass

    Odd.__name__ = "</script><b>Odd"
    results = evaluated(tmp_path / "out", Odd(), films=True, arms=("swapped",))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("<video") == page.count("data:video/mp4;base64,") == 2
    assert not re.search(r"(src|href)=['\"]?(https?:)?//", page)
    assert "<b>Odd" not in page.replace("\\u003c", "")[: page.index('id="results"')]
    data = page.split('id="results">')[1].split("</script>")[0]
    assert json.loads(data.replace("<\\/", "</")) == json.loads((tmp_path / "out" / "results.json").read_text())
    assert "McNemar" in page
    assert evaluation_page(results).count("<video") == 0
    reported = results.to_json()
    assert reported["arms"][0]["mean"]["rate"] == 1.0
    assert len(reported["episodes"]) == 56
    assert "actions" not in reported["episodes"][0]


def test_cameras_are_held_against_the_policy(tmp_path):
    class Trained(Looks):
        class record:
            cameras = ("observation.images.top",)
            proprio, frame, history, dims, view = 1, "absolute", 0, 1, {}

        def act(self, observation, instruction):
            assert set(observation["images"]) == {"observation.images.top"}
            return super().act(
                {"images": {"top": observation["images"]["observation.images.top"]}, "proprio": observation["proprio"]},
                instruction,
            )

    results = evaluated(tmp_path / "one", Trained(), episodes=3)
    assert results.arms[0].mean.rate == 1.0
    with pytest.raises(ConfigError, match=r"not trained on camera `tip`. Did you mean `top`"):
        evaluated(tmp_path / "two", Trained(), episodes=3, options={"cameras": ("tip",)})
    Trained.record.proprio, Trained.record.dims = 5, 7
    with pytest.raises(
        ConfigError, match=r"does not fit this simulator:\n.*proprio.*\n.*7 numbers; the robot's have 1 "
    ):
        evaluated(tmp_path / "three", Trained(), episodes=3)


def test_a_policy_is_shown_images_as_in_its_demonstrations():
    class Recorded(Looks):
        record = SimpleNamespace(cameras=("top",), proprio=1, frame="absolute", view={"size": 24, "bare_wrist": True})

    actor = Actor(Recorded())
    assert options_for(actor, {"limit": 9}, ("size",)) == {"limit": 9, "size": 24, "cameras": ("top",)}
    assert options_for(actor, {"size": 32}, ("size", "bare_wrist")) == {
        "size": 32, "bare_wrist": True, "cameras": ("top",)
    }, "what is asked for is done"  # fmt: skip
    assert options_for(Actor(Looks()), {"limit": 9}, ("size",)) == {"limit": 9}
