"""The synthetic policy, trained to the end in small: it solves its task from the image, and fails where images are shuffled.

Chance is about one in eight: the square stands anywhere, and the hand must touch it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.test_run import RECIPES
from vertebra.model.model import Model
from vertebra.tasks.squares import Squares, success, way_of
from vertebra.training.recipes import read_recipe
from vertebra.training.run import train
from vertebra.training.watching.metrics import METRICS, read

BY_NAME = {path.stem: path for path in RECIPES}
CHANCE = 0.125


def run(name: str, folder: Path, *settings: str) -> Path:
    """A recipe with fewer steps and a larger learning rate, evaluated at its end."""
    small = [
        "optim.lr=4e-3",
        "eval.every=0",
        "save.every=0",
        "watch.bar=false",
        "data.count=2048",
        "data.held_out=0.06",
    ]
    train(read_recipe(BY_NAME[name], [*small, *settings, f"out={folder / name}"]))
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("policy")
    run("squares-align", made, "steps=60")
    return made


@pytest.fixture(scope="module")
def solved(folder: Path) -> Path:
    return run("squares-parallel", folder, f"model.start={folder}/squares-align/model", "steps=400")


def last_success(folder: Path) -> float:
    return [row["eval"]["success"] for row in read(folder / METRICS) if "eval" in row][-1]


def test_it_solves_the_task_from_the_image(solved: Path):
    assert last_success(solved) > 0.85
    page = (solved / "report.html").read_text()
    assert "evaluation: success" in page
    assert (solved / "eval-success.png").is_file()


def test_it_fails_when_it_is_shown_other_images(solved: Path):
    model = Model.load(solved / "model", inference_mode=True)
    looking = success(model, Squares(model, 96, seed=7, way="parallel"))
    misled = success(model, Squares(model, 96, seed=7, way="parallel", shuffled=True))
    assert looking > 0.85
    assert misled < 2.5 * CHANCE


def test_it_says_its_action_one_token_after_the_other(folder: Path):
    made = run("squares", folder, f"model.start={folder}/squares-align/model", "steps=400")
    assert last_success(made) > 0.6
    model = Model.load(made / "model", inference_mode=True)
    assert success(model, Squares(model, 96, seed=7, shuffled=True)) < 2.5 * CHANCE


@pytest.mark.parametrize(("name", "steps"), [("squares-l1", 650), ("squares-flow", 350)])
def test_it_answers_in_numbers(folder: Path, name: str, steps: int):
    """Chunks of four, by regression and by flow matching."""
    made = run(name, folder, f"model.start={folder}/squares-align/model", f"steps={steps}")
    assert last_success(made) > 0.6
    model = Model.load(made / "model", inference_mode=True)
    data = read_recipe(BY_NAME[name]).data
    looking, misled = (success(model, Squares(model, 96, seed=7, way=way_of(data), shuffled=s)) for s in (False, True))
    assert looking > 0.6
    assert misled < 2.5 * CHANCE
