"""The golden pair: it holds where nothing changed, and says what changed where it does not."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import vertebra
from tests.policies.models import TASK, policy_model, seen
from vertebra.checks.policies import OF_POLICIES
from vertebra.checks.run import check, check_backbone
from vertebra.errors import CheckpointError, UnknownNameError
from vertebra.model.model import Model
from vertebra.policies.drawn import drawn_observation
from vertebra.policies.golden import check_golden, golden_pair
from vertebra.policies.golden_files import read_golden, write_golden
from vertebra.policies.policy import Policy
from vertebra.policies.settings import PolicySettings


def changed(model: Model, **fields) -> Policy:
    record = {"policy": {**model.record["policy"], **fields}}
    return Policy(Model(model.backbone, model.parts, record=record).eval())


@pytest.fixture(scope="module")
def model() -> Model:
    return policy_model(chunk=2, cameras=("image", "wrist"), proprio=True)


@pytest.fixture(scope="module")
def pair(model):
    return golden_pair(Policy(model), seen(1, "image", "wrist", proprio=True), TASK, "bridge")


@pytest.fixture
def folder(model, pair, tmp_path):
    model.save(tmp_path / "policy")
    write_golden(pair, tmp_path / "policy")
    return tmp_path / "policy"


@pytest.mark.parametrize("head", ["tokens", "parallel"])
def test_it_holds_here(head):
    model = policy_model(chunk=2, head=head, attention="block" if head == "parallel" else "causal")
    policy = Policy(model)
    pair = golden_pair(policy, seen(), TASK, "fractal")
    assert np.array_equal(pair.actions, policy.act(seen(), TASK, "fractal"))
    report = check_golden(Policy(model), pair)
    assert report.holds
    assert report.changed == ()
    assert report.difference == 0
    assert report.looks == pytest.approx(pair.looks)
    assert str(report).startswith("the golden action holds")
    assert policy.counts["actions"] == 2, "the pair itself is not counted"


def test_it_travels_in_the_folder(folder, pair):
    again = read_golden(folder)
    for name in ("values", "actions", "ids", "margins", "proprio"):
        assert np.allclose(getattr(again, name), getattr(pair, name)), name
    assert all(np.array_equal(again.images[name], image) for name, image in pair.images.items())
    assert (again.instruction, again.key, again.facts) == (
        pair.instruction,
        pair.key,
        json.loads(json.dumps(pair.facts)),
    )
    loaded = vertebra.policy(folder, golden="require")
    assert np.allclose(loaded.act(pair.observation, TASK, "bridge"), pair.actions)
    assert read_golden(folder / "golden") is None


def test_other_statistics_are_found(model, pair):
    statistics = copy.deepcopy(model.record["policy"]["statistics"])
    statistics["bridge"]["action"]["q99"][0] += 0.25
    report = check_golden(changed(model, statistics=statistics), pair)
    assert not report.holds
    assert "mean another action" in str(report)
    assert any("the statistics are others" in one for one in report.changed)


def test_another_template_is_found(model, pair):
    report = check_golden(changed(model, template="Now {instruction}."), pair)
    assert any("the action record is another" in one for one in report.changed)
    assert any("the prompt has other ids" in one for one in report.changed)
    assert not report.holds


def test_another_preparation_is_found(model, pair):
    other = copy.deepcopy(model)
    encoder = other.parts["image"].encoder
    encoder.preparation = replace(encoder.preparation, resample="nearest", fit="crop", shorter=40)
    report = check_golden(Policy(other), pair)
    assert any("`image` is prepared otherwise" in one for one in report.changed)


def test_other_weights_are_found(model, pair):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.backbone.layers[0].parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    report = check_golden(Policy(other), pair)
    assert not report.holds
    assert "nothing else that is known has changed" in str(report)


def test_who_sees_whom_is_found():
    model = policy_model(chunk=2, head="parallel", attention="block")
    pair = golden_pair(Policy(model), seen(), TASK, "bridge")
    report = check_golden(changed(model, attention="causal"), pair)
    assert any("who sees whom is another table: `block` became `causal`" in one for one in report.changed)


def test_other_versions_are_reported_and_no_fault(model, pair):
    facts = copy.deepcopy(pair.facts)
    facts["versions"]["torch"] = "1.13"
    report = check_golden(Policy(model), replace(pair, facts=facts))
    assert report.holds
    assert any(one.startswith("torch 1.13 became") for one in report.changed)


def test_a_toss_up_may_fall_otherwise(model, pair):
    ids, margins = pair.ids.copy(), pair.margins.copy()
    ids[1, 0] = pair.ids[1, 1] + (pair.ids[1, 1] == pair.ids[1, 0])
    assert not check_golden(Policy(model), replace(pair, ids=ids)).holds
    margins[1, 0] = 1e-4
    assert check_golden(Policy(model), replace(pair, ids=ids, margins=margins)).holds


def test_a_policy_that_does_not_look(model, pair):
    blind = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in blind.parts["image"].projector.parameters():
            parameter.zero_()
    report = check_golden(Policy(blind), pair)
    assert any("it does not look" in fault for fault in report.faults)
    (row,) = check(blind, only=["looks"]).results
    assert (row.status, row.mend) == ("fail", OF_POLICIES["looks"].mend)
    assert check(model, only=["looks"]).passed


def test_nothing_is_remembered():
    model = policy_model(history=1)
    policy = Policy(model)
    golden_pair(policy, seen(3), TASK, "bridge")
    assert np.array_equal(policy.act(seen(1), TASK, "bridge"), Policy(model).act(seen(1), TASK, "bridge"))


def test_a_masked_camera_stays_masked(model):
    policy = Policy(model, settings=PolicySettings(missing_camera="mask"))
    pair = golden_pair(policy, seen(1, "image", proprio=True), TASK, "bridge")
    assert check_golden(Policy(model), pair).holds


class TestTheFolder:
    def test_check_has_it(self, folder):
        report = check(folder, only=["golden", "looks", "bos"])
        assert [(row.name, row.status) for row in report.results] == [
            ("bos", "pass"),
            ("golden", "pass"),
            ("looks", "pass"),
        ]

    def test_check_says_what_changed(self, folder):
        record = json.loads((folder / "vertebra.json").read_text())
        record["record"]["policy"]["statistics"]["bridge"]["action"]["q01"][0] -= 1.0
        (folder / "vertebra.json").write_text(json.dumps(record))
        (row,) = check(folder, only=["golden"]).results
        assert row.status == "fail"
        assert "the statistics are others" in row.message

    def test_load_warns_or_refuses(self, folder, caplog):
        file = folder / "golden" / "golden.json"
        tree = json.loads(file.read_text())
        tree["actions"][0][0] += 1.0
        file.write_text(json.dumps(tree))
        vertebra.policy(folder)
        assert "the golden action does not hold" in caplog.text
        with pytest.raises(CheckpointError, match="does not hold"):
            vertebra.policy(folder, golden="require")
        caplog.clear()
        vertebra.policy(folder, golden="skip")
        assert "golden" not in caplog.text
        with pytest.raises(UnknownNameError, match="require"):
            vertebra.policy(folder, golden="required")  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": 9}, "Upgrade"),
            ({"values": None}, "damaged"),
            ({"images": {"image": "../secret.png"}}, "outside its folder"),
            ({"images": {"image": "gone.png"}}, "cannot be read"),
            ({"instruction": None, "values": [[1.0]]}, "damaged"),
        ],
    )
    def test_damage_is_named(self, folder, change, message):
        file = folder / "golden" / "golden.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        with pytest.raises(CheckpointError, match=message):
            read_golden(folder)

    def test_half_a_file(self, folder):
        file = folder / "golden" / "golden.json"
        file.write_text(file.read_text()[:99])
        with pytest.raises(CheckpointError, match="not valid JSON"):
            vertebra.policy(folder)

    def test_it_is_replaced_whole(self, folder, model):
        pair = golden_pair(Policy(model), seen(9, "image", "wrist", proprio=True), "Go", "fractal")
        write_golden(pair, folder)
        assert read_golden(folder).instruction == "Go"
        assert sorted(path.name for path in (folder / "golden").iterdir()) == ["0.png", "1.png", "golden.json"]
        with pytest.raises(CheckpointError, match="no folder of a model or an adapter"):
            write_golden(pair, folder / "golden")


def test_checks_of_policies_on_a_backbone_are_skipped(model):
    report = check_backbone(model.backbone, only=["golden", "bos"])
    assert [(row.name, row.status) for row in report.results] == [("bos", "pass"), ("golden", "skip")]
    (row,) = check(model, only=["golden"]).results
    assert "no golden pair" in row.message


def test_drawn_observations_fit(model):
    policy = Policy(model)
    made, again = drawn_observation(policy, unnorm_key="bridge"), drawn_observation(policy, unnorm_key="bridge")
    assert np.array_equal(made.images["wrist"], again.images["wrist"])
    assert np.array_equal(policy.act(made, TASK, "bridge"), policy.act(again, TASK, "bridge"))
