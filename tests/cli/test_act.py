"""`vertebra act`: the same actions as in Python, a golden pair kept, and what is shown of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import vertebra as vt
from tests.policies.models import TASK, image, policy_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("policies") / "mine"
    policy_model(chunk=2, cameras=("image", "wrist"), proprio=True).save(place)
    for number in range(2):
        Image.fromarray(image(number)).save(place.parent / f"{number}.png")
    return place


def arguments(folder, *more):
    images = ("--image", str(folder.parent / "0.png"), "--image", f"wrist={folder.parent / '1.png'}")
    return ("act", str(folder), "-i", TASK, *images, "--proprio", "0.1,-0.2,0,1e-2", "--key", "bridge", *more)


def test_the_actions_are_those_of_python(vertebra, folder):
    done = vertebra(*arguments(folder, "--json"))
    assert done.code == 0, done.err
    output = json.loads(done.out)
    seen = {"images": {"image": image(0), "wrist": image(1)}, "proprio": [0.1, -0.2, 0, 1e-2]}
    made = vt.policy(folder).decide(seen, TASK, "bridge")
    assert np.allclose(output["chunk"], made.chunk)
    assert output["ids"] == made.ids.tolist()
    assert np.allclose(output["confidence"], made.confidence, atol=1e-5)
    table = vertebra(*arguments(folder, "--execute", "1"))
    assert "in the units of bridge" in table.out
    assert f"{made.chunk[0, 0]:.4f}" in table.out
    assert f"{made.chunk[1, 0]:.4f}" not in table.out


def test_golden_and_info_and_check(vertebra, folder):
    assert "golden pair: none" in vertebra("info", str(folder)).out
    assert "kept as the golden pair" in vertebra(*arguments(folder, "--golden")).out
    out = vertebra("info", str(folder)).out
    assert "2 × 3 numbers, tokens one after the other by 8 bins (uniform)" in out
    assert "sees image, wrist, 4 numbers" in out
    assert "bridge, fractal" in out
    assert "golden pair: kept" in out
    done = vertebra("check", str(folder), "--only", "golden,looks,pad", "--json")
    rows = {row["name"]: row["status"] for row in json.loads(done.out)["checks"]}
    assert rows == {"pad": "pass", "golden": "pass", "looks": "pass"}
    assert vertebra("act", str(folder), "-i", "go", "--drawn", "--key", "fractal").code == 0


def test_mistakes(vertebra, folder):
    assert (
        "camera `wrist` is missing"
        in vertebra("act", str(folder), "-i", "go", "--image", "x.png", "--key", "bridge").err
    )
    wrong = arguments(folder, "--image", "b=c", "--image", "b=d")
    assert "two images of camera `b`" in vertebra(*wrong).err
    assert "expected numbers" in vertebra("act", str(folder), "-i", "go", "--proprio", "a").err
    assert "leave --image" in vertebra("act", str(folder), "-i", "go", "--drawn", "--proprio", "1").err
    assert "missing_camera" in vertebra("act", str(folder), "-i", "go", "--missing", "ignore").err
    assert "no record of actions" in vertebra("act", "tiny-llama2", "-i", "go").err


def test_cameras_and_files_of_any_name(vertebra, folder, tmp_path):
    """What a data set may call a camera can be said here, no image is dropped, and a mark in a file's name is no camera's."""
    cameras = ("left-eye", "observation/top.rgb")
    policy_model(chunk=2, cameras=cameras).save(tmp_path / "mine")
    files = [tmp_path / "a=b.png", tmp_path / "c.png"]
    for number, file in enumerate(files):
        Image.fromarray(image(number)).save(file)
    made = vt.policy(tmp_path / "mine").act({"images": dict(zip(cameras, files, strict=True))}, TASK, "bridge")

    def act(*images):
        named = [part for one in images for part in ("--image", str(one))]
        return vertebra("act", str(tmp_path / "mine"), "-i", TASK, *named, "--key", "bridge", "--json")

    for first in (files[0], f"left-eye={files[0]}"):
        done = act(first, f"observation/top.rgb={files[1]}")
        assert done.code == 0, done.err
        assert np.allclose(json.loads(done.out)["chunk"], made)
    assert "two images of camera `left-eye`" in act(files[0], f"left-eye={files[1]}").err
    unknown = act(f"left-eyes={files[0]}", f"observation/top.rgb={files[1]}").err
    assert "unknown camera `left-eyes`. Did you mean `left-eye`?" in unknown
    assert "names no file" in act("left-eye=").err
