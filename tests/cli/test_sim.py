"""`vertebra sim tasks|collect|eval` in Meta-World, with a policy of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.policies.models import counted, policy_model
from vertebra import policy as load_policy
from vertebra.evaluate.records import EpisodeRecord
from vertebra.serve import Server, ServeSettings
from vertebra.serve.holding import Folder

CHEAP = ("--size", "32", "--limit", "7", "--episodes", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("policies") / "mine"
    policy_model(
        chunk=3, dims=4, cameras=("side",), proprio=True, statistics={"metaworld": counted(4, 4, 1)}
    ).save(place)  # fmt: skip
    return place


def records(out: Path) -> list[dict]:
    files = sorted((out / "episodes").rglob("*.json"))
    return [EpisodeRecord(**json.loads(path.read_text())).same for path in files]


def test_tasks(vertebra):
    listed = json.loads(vertebra("sim", "tasks", "--json").out)
    assert len(listed) == 50
    drawer = next(row for row in listed if row["name"] == "drawer-open")
    assert drawer["instruction"] == "open the drawer"
    assert drawer["partner"] == "drawer-close"
    assert drawer["expert"] == 1.0
    shown = vertebra("sim", "tasks").out
    assert all(row["name"] in shown for row in listed)
    wrong = vertebra("sim", "tasks", "--suite", "libera")
    assert wrong.code == 1
    assert "unknown suite" in wrong.err


@pytest.mark.usefixtures("draws")
def test_an_evaluation_is_the_same_for_any_number_of_workers_and_robots(vertebra, folder, tmp_path):
    tasks = ("sim", "eval", str(folder), "--tasks", "drawer-open", *CHEAP, "--arms", "swapped,chunk=1,ensemble=0.1")
    one = vertebra(*tasks, "--out", str(tmp_path / "one"), "--workers", "1")
    assert one.code == 0, one.err
    assert "mean of tasks" in one.out
    two = vertebra(*tasks, "--out", str(tmp_path / "two"), "--workers", "2", "--no-films", "--json")
    assert two.code == 0, two.err
    many = vertebra(*tasks, "--out", str(tmp_path / "many"), "--robots", "2", "--no-films")
    assert many.code == 0, many.err
    assert len(records(tmp_path / "one")) == 8
    blended = [
        EpisodeRecord(**json.loads(path.read_text())) for path in (tmp_path / "one").rglob("ensemble-0.1/**/*.json")
    ]
    assert [record.decisions for record in blended] == [record.steps for record in blended]
    assert len(blended) == 2
    assert records(tmp_path / "one") == records(tmp_path / "two") == records(tmp_path / "many")
    output = json.loads(two.out)
    assert [arm["arm"] for arm in output["arms"]] == ["policy", "swapped", "chunk-1", "ensemble-0.1"]
    assert output["policy"] == str(folder)
    assert len(list((tmp_path / "one" / "films").glob("*.mp4"))) == 1
    assert not (tmp_path / "two" / "films").exists()
    assert "data:video/mp4" in (tmp_path / "one" / "report.html").read_text()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / "episodes").rglob("*.json")}
    assert vertebra(*tasks, "--out", str(tmp_path / "one")).code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what is there is not run again"
    other = vertebra(*tasks, "--seed", "1", "--out", str(tmp_path / "one"))
    assert other.code == 1
    assert "seed: there 0, now 1" in other.err


@pytest.mark.usefixtures("draws")
def test_a_policy_that_is_served_does_what_it_does_in_this_process(vertebra, folder, tmp_path):
    """Identical actions and outcomes, episode for episode, over a websocket and over HTTP, as the policy and as an arm."""
    tasks = ("--tasks", "drawer-open,reach", *CHEAP, "--no-films")
    here = vertebra("sim", "eval", str(folder), *tasks, "--out", str(tmp_path / "here"))
    assert here.code == 0, here.err
    then = Folder(str(folder))
    with Server(load_policy(folder), ServeSettings(port=0), name=str(folder), folder=then) as server:
        socket, arm, port = server.url.replace("http", "ws"), f"http={server.url}", server.port
        served = vertebra("sim", "eval", socket, *tasks, "--arms", arm, "--out", str(tmp_path / "served"))
        assert served.code == 0, served.err
        expected, made = records(tmp_path / "here"), records(tmp_path / "served")
        assert len(expected) == 4
        for which in ("policy", "http"):
            assert [{**one, "arm": "policy"} for one in made if one["arm"] == which] == expected
        many = vertebra("sim", "eval", socket, *tasks, "--robots", "2", "--out", str(tmp_path / "many"))
        assert many.code == 0, many.err
        assert [(one["seed"], one["success"], one["steps"]) for one in records(tmp_path / "many")] == [
            (one["seed"], one["success"], one["steps"]) for one in expected
        ]
        outside = vertebra("sim", "eval", socket, *tasks, "--outside", "clamp", "--out", str(tmp_path / "no"))
        assert "vertebra serve --outside" in outside.err
        unfit = vertebra("sim", "eval", socket, *tasks, "--cameras", "front", "--out", str(tmp_path / "no"))
        assert "not trained on camera `front`" in unfit.err
    with Server(load_policy(folder), ServeSettings(port=port), name="another"):
        again = vertebra("sim", "eval", socket, *tasks, "--arms", arm, "--out", str(tmp_path / "served"))
        assert "the policies: another one" in again.err


@pytest.mark.usefixtures("draws")
def test_mistakes(vertebra, folder, tmp_path):
    out = ("--out", str(tmp_path / "out"), *CHEAP)
    for arguments, text in (
        (("eval", str(folder), "--tasks", "drawer-opn", *out), "Did you mean `drawer-open`"),
        (("eval", str(folder), "--tasks", "drawer-open", "--cameras", "sid", *out), "not trained on camera `sid`"),
        (("eval", str(folder), "--tasks", "drawer-open", "--arms", "swaped", *out), "Did you mean `swapped`"),
        (("eval", str(folder), "--tasks", "reach", "--shared", *out), "shares its scene with no task"),
        (("eval", str(tmp_path / "none"), "--tasks", "reach", *out), "none"),
        (("collect", "--tasks", "door-open", "--spread", "4", *out), "its expert holds"),
        (("collect", "--tasks", "reach", "--codec", "mpeg", *out), "mpeg"),
        (("collect", "--tasks", "reach", "--cameras", "sideways", *out), "unknown camera"),
    ):
        done = vertebra("sim", *arguments)
        assert done.code in (1, 2), arguments
        assert text in done.err, (arguments, done.err)
        assert "Traceback" not in done.err


def test_no_library_that_draws_is_one_message(vertebra, tmp_path, monkeypatch):
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    done = vertebra("sim", "collect", "--tasks", "reach", "--episodes", "1", "--out", str(tmp_path / "out"))
    assert done.code == 1
    assert "apt-get install libosmesa6" in done.err
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("MUJOCO_GL", "glwf")
    assert "Known: egl, osmesa" in vertebra("sim", "collect", "--tasks", "reach", "--out", str(tmp_path / "out")).err
