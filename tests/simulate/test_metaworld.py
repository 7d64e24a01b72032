"""Meta-World behind the seam: an episode is its seed, whatever ran before."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vertebra.errors import ConfigError, DataError, SimulationError, UnknownNameError
from vertebra.simulate import Simulation, episode_seed, open_task, task_facts, task_names
from vertebra.simulate.metaworld.instructions import MT10, TASKS
from vertebra.simulate.metaworld.options import CAMERAS

pytestmark = pytest.mark.usefixtures("draws")


@pytest.fixture(scope="module")
def drawer():
    return open_task("drawer-open")


def digest(simulation: Simulation, seed: int, steps: int = 5) -> str:
    """Everything that an episode of the expert shows."""
    simulation.reset(seed)
    found = hashlib.sha256()
    for _ in range(steps):
        for image in simulation.look().values():
            found.update(image.tobytes())
        found.update(simulation.state().tobytes())
        simulation.step(simulation.expert())
    return found.hexdigest()


def test_it_is_what_the_seam_asks_for(drawer):
    drawer.reset(0)
    assert isinstance(drawer, Simulation)
    images = drawer.look()
    assert list(images) == list(drawer.cameras) == ["side", "gripperPOV"]
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image in images.values())
    assert drawer.state().shape == (len(drawer.state_names),)
    assert drawer.expert().shape == (len(drawer.action_names),)
    assert len({image.std() > 10 for image in images.values()}) == 1


def test_an_episode_is_its_seed_whatever_ran_before(drawer):
    first = digest(drawer, 3)
    digest(drawer, 4, steps=25)
    for _ in range(60):
        drawer.step(drawer.expert())  # the drawer is half open by now
    other = open_task("window-close", colors=True, jitter=10.0)
    digest(other, 3)
    assert digest(drawer, 3) == first
    assert digest(open_task("drawer-open"), 3) == first
    assert digest(drawer, 4) != first


def test_it_is_the_same_in_another_process(drawer):
    code = (
        "from vertebra.simulate import open_task\nfrom tests.simulate.test_metaworld import digest\n"
        "print(digest(open_task('drawer-open'), 3))"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == digest(drawer, 3)


def test_seeds_give_places_of_their_own(drawer):
    """Stock Meta-World has fifty."""
    places = set()
    for seed in range(56):
        drawer.reset(seed)
        places.add(round(float(drawer._env.data.body("drawer").xpos[0]), 9))
    assert len(places) == 56
    assert -0.1 <= min(places) < -0.05
    assert 0.05 < max(places) <= 0.1


def test_a_wider_spread_is_about_the_same_middle(drawer):
    wide = open_task("drawer-open", spread=3.0, beyond=True)
    found = []
    for seed in range(12):
        drawer.reset(seed)
        wide.reset(seed)
        stock, wider = (one._env.data.body("drawer").xpos.copy() for one in (drawer, wide))
        assert np.allclose(wider[0], 3 * stock[0], atol=1e-6)
        assert wider[2] == stock[2]
        found.append(wider[0])
    assert max(found) > 0.15


def test_first_images_of_a_pair_are_equal_where_the_scene_is_shared():
    for task in ("drawer", "window", "faucet"):
        opened, closed = (open_task(f"{task}-{what}", shared=True) for what in ("open", "close"))
        for one in (opened, closed):
            one.reset(7)
        assert opened.instruction != closed.instruction
        mine, theirs = opened.look(), closed.look()
        assert all((mine[camera] == theirs[camera]).all() for camera in mine)


@pytest.mark.parametrize("task", ["drawer-open", "faucet-close", "reach"])
def test_experts_do_their_tasks(task: str):
    simulation = open_task(task)
    done = 0
    for number in range(3):
        simulation.reset(episode_seed("evaluate", task, 0, number))
        done += any(simulation.step(simulation.expert()).success for _ in range(simulation.limit))
    assert done == 3


def test_the_goal_is_marked_where_nothing_else_shows_it():
    def shows_red(task: str) -> bool:
        simulation = open_task(task, cameras=("side",), size=192)
        simulation.reset(1)
        red, green, blue = simulation.look()["side"].reshape(-1, 3).astype(int).T
        return bool(((red > 230) & (green < 40) & (blue < 40)).any())

    assert shows_red("reach")
    assert not shows_red("drawer-open")


def test_options_change_what_is_seen_and_nothing_else(drawer):
    drawer.reset(5)
    stock = drawer.look()
    for options, changed in (
        ({"colors": True}, {"side", "gripperPOV"}),
        ({"jitter": 5.0}, {"side", "gripperPOV"}),
        ({"bare_wrist": True}, set()),
    ):
        other = open_task("drawer-open", **options)
        other.reset(5)
        images = other.look()
        assert {camera for camera in images if (images[camera] != stock[camera]).any()} == changed or options.get(
            "bare_wrist"
        )
        assert (other.state() == drawer.state()).all()
    side = open_task("drawer-open", bare_wrist=True)
    side.reset(5)
    assert (side.look()["side"] == stock["side"]).all(), "the arm is left out of the wrist's image alone"


def test_every_camera_sees_something():
    simulation = open_task("drawer-open", cameras=tuple(CAMERAS))
    simulation.reset(0)
    images = simulation.look()
    assert len({image.tobytes() for image in images.values()}) == len(CAMERAS)
    assert all(image.std() > 5 for image in images.values())


def test_looking_changes_nothing():
    one, other = open_task("drawer-open"), open_task("drawer-open")
    for simulation in (one, other):
        simulation.reset(2)
    for _ in range(20):
        one.look()
        one.picture("corner", 100)
        one.step(one.expert())
        other.step(other.expert())
    assert (one._env.data.qpos == other._env.data.qpos).all()


def test_actions_are_held_against_what_is_expected(drawer):
    drawer.reset(0)
    for wrong in ([0, 0, 0], [0, 0, 0, float("nan")], [[0, 0, 0, 0]]):
        with pytest.raises(DataError, match="expected 4 finite numbers"):
            drawer.step(np.array(wrong))


def test_an_episode_ends_at_its_limit_and_goes_on_after_a_reset():
    simulation = open_task("drawer-open", limit=3)
    with pytest.raises(SimulationError, match="was not reset"):
        simulation.look()
    for _ in range(2):
        simulation.reset(0)
        ends = [simulation.step(np.zeros(4)).ended for _ in range(3)]
        assert ends == [False, False, True]
        with pytest.raises(SimulationError, match="ended after 3 steps"):
            simulation.step(np.zeros(4))
    simulation.close()
    with pytest.raises(SimulationError, match="closed"):
        simulation.state()


def test_an_unstable_simulation_is_the_simulators_failure(drawer):
    drawer.reset(0)
    drawer._env.data.qvel[:] = np.nan
    with pytest.raises(SimulationError, match="unstable at step 1"):
        drawer.step(np.zeros(4))
    drawer.reset(0)
    drawer.step(np.zeros(4))


def test_wrong_names_and_options_are_answered():
    with pytest.raises(UnknownNameError, match="Did you mean `drawer-open`"):
        open_task("drawer-opens")
    with pytest.raises(UnknownNameError, match="Did you mean `metaworld`"):
        task_names("meta-world")
    with pytest.raises(ConfigError, match="gripperPOV"):
        open_task("drawer-open", cameras=("gripperPov",))
    with pytest.raises(ConfigError, match="camera"):
        open_task("drawer-open", camera=("side",))
    with pytest.raises(ConfigError, match="shares its scene with no task"):
        open_task("reach", shared=True)
    with pytest.raises(ConfigError, match="its expert holds"):
        open_task("drawer-open", spread=9.0)


def test_the_table():
    assert len(TASKS) == 50
    assert set(MT10) < set(TASKS)
    for name, row in TASKS.items():
        facts = task_facts(name)
        assert len(row.paraphrases) >= 1
        assert row.instruction not in row.paraphrases
        if row.partner:
            assert TASKS[row.partner].partner == name
            assert task_facts(row.partner).instruction != facts.instruction
    sentences = [sentence for row in TASKS.values() for sentence in (row.instruction, *row.paraphrases)]
    assert len(sentences) == len(set(sentences))


def test_seeds_of_training_and_of_evaluation_never_meet():
    made = [
        episode_seed(purpose, task, 0, n) for purpose in ("collect", "evaluate") for task in MT10 for n in range(100)
    ]
    assert len(set(made)) == len(made)
    assert 0 <= min(made) <= max(made) < 1 << 62
