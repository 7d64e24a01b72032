"""LIBERO itself, beside its own environment as published evaluations run it (`make test-libero`)."""

from __future__ import annotations

import gc
import hashlib

import numpy as np
import pytest

from vertebra.errors import ConfigError, DataError, MissingPartError, SimulationError
from vertebra.simulate import Simulation, collect, open_task, task_facts, task_names
from vertebra.simulate.libero.files import require_package, tasks

pytestmark = [
    pytest.mark.libero,
    pytest.mark.usefixtures("installed", "draws"),
    pytest.mark.filterwarnings("ignore"),  # robosuite's and bddl's own
]
MILK, CHEESE, BOWL = (
    "libero_object/pick_up_the_milk_and_place_it_in_the_basket",
    "libero_object/pick_up_the_cream_cheese_and_place_it_in_the_basket",
    "libero_goal/open_the_middle_drawer_of_the_cabinet",
)
RNG = np.random.default_rng(0)
ACTIONS = RNG.uniform(-1, 1, (12, 7))


@pytest.fixture(scope="module")
def installed():
    try:
        require_package()
    except MissingPartError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def milk(installed):
    simulation = open_task(MILK, size=64)
    yield simulation
    simulation.close()


def digest(simulation: Simulation, seed: int, actions=ACTIONS[:5]) -> str:
    simulation.reset(seed)
    found = hashlib.sha256()
    for action in actions:
        for image in simulation.look().values():
            found.update(image.tobytes())
        found.update(simulation.state().tobytes())
        simulation.step(action)
    return found.hexdigest()


def axis_angle_of_evaluations(quaternion: np.ndarray) -> np.ndarray:
    w = min(1.0, max(-1.0, quaternion[3]))
    sine = np.sqrt(1.0 - w * w)
    return np.zeros(3) if np.isclose(sine, 0.0) else quaternion[:3] * 2.0 * np.arccos(w) / sine


@pytest.mark.parametrize(("task", "seed"), [(MILK, 3), (BOWL, 17)])
def test_observations_are_those_of_published_evaluations_to_the_bit(task: str, seed: int):
    """The plain path renders two images at every step: 20 times slower to open, 6 times slower to run."""
    ours = open_task(task, size=64)
    digest(ours, seed + 1)  # an episode before
    ours.reset(seed)
    from libero.libero.envs import OffScreenRenderEnv

    one = tasks()[task]
    plain = OffScreenRenderEnv(bddl_file_name=str(one.problem), camera_heights=64, camera_widths=64)
    plain.seed(0)
    plain.reset()
    plain.set_init_state(one.states()[seed])
    for _ in range(10):
        seen, *_ = plain.step([0, 0, 0, 0, 0, 0, -1])
    for step, action in enumerate([*ACTIONS, None]):
        state = [
            seen["robot0_eef_pos"],
            axis_angle_of_evaluations(seen["robot0_eef_quat"]),
            seen["robot0_gripper_qpos"],
        ]
        assert (ours.state() == np.concatenate(state).astype(np.float32)).all(), step
        if step % 4 == 0:  # looked at now and then, as a policy with chunks does
            images = ours.look()
            for camera in ours.cameras:
                assert (images[camera] == seen[f"{camera}_image"][::-1, ::-1]).all(), (step, camera)
                assert images[camera].std() > 10
        if action is not None:
            seen, _, done, _ = plain.step(action)
            assert ours.step(action).success == done
    assert (ours._env.sim.data.qpos == plain.env.sim.data.qpos).all()
    plain.close()
    ours.close()


def test_an_episode_is_its_seed_whatever_ran_before(milk):
    official, drawn = digest(milk, 3), digest(milk, 10**15)
    for _ in range(40):
        milk.step(np.array([0, -1, -1, 0, 0, 1, 1.0]))
    assert digest(milk, 3) == official
    assert digest(milk, 10**15) == drawn
    other = open_task(MILK, size=64)
    assert digest(other, 10**15) == drawn
    assert digest(milk, 3) == official, "another simulation has drawn in between"
    assert len({official, drawn, digest(milk, 4), digest(milk, 10**15 + 1)}) == 4
    other.close()


def test_numpys_generator_is_as_it_was(milk):
    before = np.random.get_state()[1].copy()
    milk.reset(5)
    assert (np.random.get_state()[1] == before).all()


def test_looking_changes_nothing():
    ends = []
    for looks in (True, False):
        simulation = open_task(CHEESE, size=32)
        simulation.reset(1)
        for action in ACTIONS:
            if looks:
                simulation.look()
                simulation.picture("frontview", 100)
            simulation.step(action)
        ends.append(simulation._env.sim.data.qpos.copy())
        simulation.close()
    assert (ends[0] == ends[1]).all()


def test_a_simulation_that_is_closed_takes_nothing_from_another(milk):
    """Textures of two contexts have the same names; each order of opening, drawing and closing is tried."""
    expected = digest(milk, 3)
    stone = open_task("drawer-open")
    for begun, closed in ((False, True), (True, True), (True, False)):
        other = open_task(BOWL, size=64)
        if begun:
            digest(other, 3)
        stone.reset(3)
        before = stone.look()
        if closed:
            other.close()
        del other  # and where nobody closed it
        gc.collect()
        assert all((before[camera] == image).all() for camera, image in stone.look().items())
        assert digest(milk, 3) == expected
    stone.close()


def test_it_is_what_the_seam_asks_for(milk):
    milk.reset(0)
    assert isinstance(milk, Simulation)
    assert milk.state().shape == (len(milk.state_names),)
    assert milk.expert().shape == (len(milk.action_names),) == (7,)
    assert (milk.instruction, milk.limit) == ("pick up the milk and place it in the basket", 280)


@pytest.mark.parametrize(("task", "seed"), [(MILK, 0), (CHEESE, 10**12)])
def test_the_expert_does_its_task(task: str, seed: int):
    simulation = open_task(task)
    simulation.reset(seed)
    assert any(simulation.step(simulation.expert()).success for _ in range(150))
    simulation.close()


def test_an_episode_ends_at_its_limit():
    simulation = open_task(CHEESE, limit=2)
    with pytest.raises(SimulationError, match="was not reset"):
        simulation.look()
    simulation.reset(0)
    assert [simulation.step(np.zeros(7)).ended for _ in range(2)] == [False, True]
    with pytest.raises(SimulationError, match="ended after 2 steps"):
        simulation.step(np.zeros(7))
    simulation.close()
    with pytest.raises(SimulationError, match="closed"):
        simulation.state()
    with pytest.raises(SimulationError, match="closed; open it anew"):
        simulation.reset(0)


def test_what_is_wrong_is_answered(milk):
    milk.reset(0)
    for wrong in ([0.0] * 4, [0.0] * 6 + [float("nan")]):
        with pytest.raises(DataError, match="expected 7 finite numbers"):
            milk.step(np.array(wrong))
    with pytest.raises(ConfigError, match="Did you mean `agentview`"):
        open_task(MILK, cameras=("agent_view",))
    with pytest.raises(ConfigError, match="spread"):
        open_task(MILK, spread=2.0)
    drawer = open_task(BOWL)
    drawer.reset(0)
    with pytest.raises(ConfigError, match="no scripted expert"):
        drawer.expert()
    drawer.close()


def test_a_library_that_draws_nothing_is_found(milk, monkeypatch):
    """A policy would be shown black images, and lose every episode by itself."""
    milk.reset(0)
    milk.look()
    monkeypatch.setattr(type(milk._moment._context), "read_pixels", lambda *_: np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(SimulationError, match="of one color; its OpenGL library failed"):
        milk.look()


def test_a_hand_that_is_covered_goes_on(milk, monkeypatch):
    milk.reset(0)
    drawn = milk._moment._pixels
    covered = np.full((64, 64, 3), 190, np.uint8)
    monkeypatch.setattr(
        milk._moment, "_pixels", lambda camera, size: covered if "hand" in camera else drawn(camera, size)
    )
    assert (milk.look()["robot0_eye_in_hand"] == 190).all()


def test_every_task_is_there():
    assert len(task_names("libero")) == 290
    standard = [name for suite in ("spatial", "object", "goal", "10", "90") for name in task_names(f"libero_{suite}")]
    assert len(standard) == 130
    for name in task_names("libero"):
        one = tasks()[name]
        assert one.problem.is_file()
        assert one.states().shape[0] == task_facts(name).official == 50
        assert one.instruction


def test_demonstrations_are_written_and_read_back(tmp_path):
    from vertebra.episodes import open_episodes

    made = collect(MILK, tmp_path / "set", episodes=1, every=40, size=32, noise=0.3)
    episodes = open_episodes(tmp_path / "set")
    assert (made.episodes, episodes.fps, episodes.robot) == ({MILK: 1}, 20, "panda")
    assert episodes.tasks == ("pick up the milk and place it in the basket",)
    columns = episodes.columns(0)
    assert columns["action"].shape[1:] == (7,)
    assert columns["observation.state"].shape[1:] == (8,)
    assert episodes.frames(0, "observation.images.agentview", [0]).shape == (1, 32, 32, 3)
    assert made.seeds[MILK][0] >= 50, "official initial states are left for evaluations"
