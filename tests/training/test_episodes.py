"""Runs that learn from episodes: killed and gone on with to the bit, and what they leave is a policy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vertebra as vt
from tests.tasks.robots import SENTENCES, episodes, small_set
from vertebra.config import write
from vertebra.episodes import open_episodes
from vertebra.tasks.acting import WAYS
from vertebra.training.building import build_model
from vertebra.training.planning.outline import outline
from vertebra.training.run import train
from vertebra.training.watching.metrics import METRICS, read, without_clock

LOOKS = {"shift": 2, "color": 0.2, "history": 1, "every": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("sets") / "cubes")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))


def test_a_killed_run_ends_as_if_nothing_had_been(folder: Path, tmp_path: Path):
    data = {"workers": 1}
    whole = train(episodes(folder, options=LOOKS, data=data, out=str(tmp_path / "whole")))
    config = episodes(folder, options=LOOKS, data=data, out=str(tmp_path / "killed"))
    write(config, tmp_path / "recipe.yaml")
    # the checkpoint of step 3 is there, and the end is not
    script = (
        "import sys, time; from vertebra.training.trainer import ExactTrainer as T; b = T.compute_loss\n"
        "def slow(self, *a, **k):\n    time.sleep(5 if self.state.global_step > 3 else 0); return b(self, *a, **k)\n"
        "T.compute_loss = slow\n"
        "from vertebra.training.recipes import read_recipe; from vertebra.training.run import train\n"
        "train(read_recipe(sys.argv[1]))"
    )
    run = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "recipe.yaml")], env=os.environ
    )
    until = time.monotonic() + 300
    while not list((tmp_path / "killed").glob("checkpoints/checkpoint-*3")) and run.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model").exists()
    again = train(config, resume=True)
    assert (whole.step, again.step) == (6, 6)
    weights = [load_file(done.model / "model.safetensors") for done in (whole, again)]  # type: ignore[operator]
    for name, tensor in weights[0].items():
        assert torch.equal(weights[1][name], tensor), name
    rows = [[without_clock(row) for row in read(tmp_path / name / METRICS)] for name in ("whole", "killed")]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("head", WAYS)
def test_what_a_run_leaves_is_a_policy(folder: Path, head: str, tmp_path: Path):
    config = episodes(folder, head, options={"execute": 2}, steps=2, out=str(tmp_path / "run"))
    done = train(config)
    policy = vt.policy(str(done.model))
    shown = open_episodes(folder)
    images = {"top": shown.frames(2, "observation.images.top", [4])[0], "wrist": np.zeros((32, 32, 3), np.uint8)}
    chunk = policy.act({"images": images, "proprio": [0.1, -0.2, 0.3]}, SENTENCES[0])
    assert chunk.shape == (2, 2)
    assert np.isfinite(chunk).all()
    assert policy.keys == ["cubes"]
    planned, there = (
        {name: tuple(one.shape) for name, one in made.named_parameters() if not name.startswith("backbone.")}
        for made in (outline(config), build_model(config))
    )
    assert planned == there


def test_each_camera_may_have_an_encoder_of_its_own(folder: Path):
    model = build_model(episodes(folder))
    assert list(model.parts) == ["image:top", "image:wrist", "proprio", "action"]
    shared = build_model(episodes(folder, model__image={"encoder": "patches", "image_size": 16, "patch_size": 8}))
    assert list(shared.parts) == ["image", "proprio", "action"]
