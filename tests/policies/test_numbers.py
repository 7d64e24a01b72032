"""Heads that give numbers, as policies: against the plain way, in batches, in real time, with their golden pairs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import vertebra
from tests.policies.models import DIMS, STATISTICS, TASK, policy_model, seen
from vertebra.action.normalization import unnormalize
from vertebra.action.statistics import lookup
from vertebra.decode.actions import predict
from vertebra.errors import ConfigError, DataError
from vertebra.model.heads.interface import SeenByHeads, chunks_of
from vertebra.model.heads.previous import Previous
from vertebra.model.model import Model
from vertebra.policies.golden import check_golden, golden_pair
from vertebra.policies.golden_files import read_golden, write_golden
from vertebra.policies.observation import Observation
from vertebra.policies.policy import Policy
from vertebra.policies.settings import PolicySettings

CHUNK = 4
BRIDGE = lookup(STATISTICS, "bridge")[1].action


def model_with(head: str, **changes) -> Model:
    return policy_model(head=head, chunk=CHUNK, **changes)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2.5"])
@pytest.mark.parametrize("see", ["causal", "block", "row"])
def test_regression_is_the_plain_way(name, see):
    """One forward with the blocks by hand, the states one before each slot, the head, the formula."""
    policy = Policy(policy_model(name, head="l1", chunk=CHUNK, attention=see))
    model = policy.model
    made = policy.act(seen(2), TASK, "bridge")
    row = policy.prompts.row(Observation.of(seen(2)), TASK, None)
    batch = model.collate([row.sequence], [row.features])
    slots = batch["slot"][..., 0] == batch["segments"].index("action")
    blocks = {"causal": torch.zeros_like(batch["block"]), "block": slots.int(), "row": torch.ones_like(batch["block"])}
    batch["block"] = blocks[see]
    head = model.heads["action"]
    with torch.no_grad():
        hidden = model(**batch, return_loss=False, output_hidden_states=True).hidden_states[-1]
        expected = head.actions(SeenByHeads(batch=batch, hidden=hidden), chunks_of(batch, "action", head.slots))[0]
    assert made.shape == (CHUNK, DIMS)
    assert np.allclose(made, unnormalize(expected.double().numpy(), BRIDGE), atol=1e-5)


@pytest.mark.parametrize("head", ["l1", "flow"])
@pytest.mark.parametrize("layout", ["before", "after"])
def test_many_robots_are_each_alone(head, layout):
    model = model_with(head, images=layout)
    observations = [seen(n) for n in range(3)]
    texts = ["Go", "Pick up the red block and put it down", "Open the drawer"]
    together = Policy(model).act_many(observations, texts, "bridge")
    for one, text, chunk in zip(observations, texts, together, strict=True):
        assert np.allclose(Policy(model).act(one, text, "bridge"), chunk, atol=2e-4)
    same = Policy(model).act_many(observations, "Go", "bridge")
    alone = Policy(model, settings=PolicySettings(keep_prefix=False)).act(observations[2], "Go", "bridge")
    assert np.allclose(same[2], alone, atol=2e-4)


def test_noise_is_decided_by_the_seed():
    model = model_with("flow")
    policy = Policy(model)
    assert np.array_equal(policy.act(seen(), TASK, "bridge"), policy.act(seen(), TASK, "bridge"))
    other = Policy(model, settings=PolicySettings(seed=7)).act(seen(), TASK, "bridge")
    assert not np.allclose(other, policy.act(seen(), TASK, "bridge"))
    fewer = Policy(model, settings=PolicySettings(steps=1)).act(seen(), TASK, "bridge")
    assert not np.allclose(fewer, policy.act(seen(), TASK, "bridge"))


@pytest.mark.parametrize("how", ["guided", "trained"])
def test_a_chunk_goes_on_from_the_one_before(how):
    model = model_with("flow")
    policy = Policy(model, settings=PolicySettings(real_time=how, delay=1))
    first = policy.decide(seen(0), TASK, "bridge")
    second = policy.decide(seen(1), TASK, "bridge", done=2)
    row = policy.prompts.row(Observation.of(seen(1)), TASK, None)
    old = torch.from_numpy(first.values[2:]).float()[None]
    batch = model.collate([row.sequence], [row.features], side="left")
    plain = predict(model, batch, previous=Previous(actions=old, delay=1, how=how))[0]
    assert np.allclose(second.values, plain.numpy(), atol=1e-5)
    if how == "trained":
        assert np.allclose(second.values[0], first.values[2], atol=1e-5), "what is decided stays"
    third = policy.decide(seen(2), TASK, "bridge", done=CHUNK)
    assert np.allclose(third.values, Policy(model).decide(seen(2), TASK, "bridge").values, atol=1e-5)


def test_robots_that_begin_and_robots_that_go_on():
    """In one call, each as if alone."""
    model, settings = model_with("flow"), PolicySettings(real_time="trained", delay=1)
    policy, alone = Policy(model, settings=settings), Policy(model, settings=settings)
    for one in (policy, alone):
        one.act(seen(0), TASK, "bridge", robot="a")
    both = policy.act_many([seen(1), seen(2)], TASK, "bridge", robots=["a", "b"], done=1)
    assert np.allclose(both[0], alone.act(seen(1), TASK, "bridge", robot="a", done=1), atol=2e-4)
    assert np.allclose(both[1], alone.act(seen(2), TASK, "bridge", robot="b", done=1), atol=2e-4)
    policy.reset("a")
    fresh = policy.act(seen(1), TASK, "bridge", robot="a", done=1)
    assert np.allclose(fresh, Policy(model).act(seen(1), TASK, "bridge"), atol=2e-4)


@pytest.mark.parametrize("head", ["l1", "flow"])
def test_golden_pairs(head, tmp_path):
    model = model_with(head)
    model.save(tmp_path / "policy")
    pair = golden_pair(Policy(model), seen(1), TASK, "bridge")
    write_golden(pair, tmp_path / "policy")
    assert read_golden(tmp_path / "policy").ids is None
    loaded = vertebra.policy(tmp_path / "policy", golden="require")
    assert np.allclose(loaded.act(seen(1), TASK, "bridge"), pair.actions, atol=1e-4)
    other = Model(model.backbone, model.parts, record=model.record, heads=copy.deepcopy(dict(model.heads))).eval()
    with torch.no_grad():
        for parameter in other.heads.parameters():
            parameter.mul_(1.2)
    report = check_golden(Policy(other), pair)
    assert "numbers differ by" in str(report)


def test_nan_is_refused():
    model = copy.deepcopy(model_with("l1"))
    with torch.no_grad():
        next(model.heads.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match=f"{CHUNK * DIMS} of {CHUNK * DIMS} numbers"):
        Policy(model).act(seen(), TASK, "bridge")


def test_sureness_is_of_tokens():
    made = Policy(model_with("l1")).decide(seen(), TASK, "bridge")
    assert (made.ids, made.entropy, made.confidence) == (None, None, None)


def test_heads_and_records_that_differ():
    model = model_with("l1")

    def changed(heads=None, **fields):
        record = {"policy": model.record["policy"] | fields}
        return Policy(Model(model.backbone, model.parts, record=record, heads=model.heads if heads is None else heads))

    with pytest.raises(ConfigError, match="the record says `flow`"):
        changed(head="flow")
    with pytest.raises(ConfigError, match="8 × 3 numbers, and the head of"):
        changed(chunk=8)
    with pytest.raises(ConfigError, match="has none; its heads"):
        changed(heads={})


def test_settings_without_effect():
    flow, l1 = model_with("flow"), model_with("l1")
    for model, bad in (
        (l1, {"real_time": "guided"}),
        (flow, {"delay": 1}),
        (flow, {"real_time": "guided", "ensemble": 0.1}),
        (l1, {"steps": 2}),
    ):
        with pytest.raises(ConfigError):
            Policy(model, settings=PolicySettings(**bad))
    with pytest.raises(ConfigError, match="done=1 without effect"):
        Policy(flow).act(seen(), TASK, "bridge", done=1)
    policy = Policy(flow, settings=PolicySettings(real_time="guided"))
    policy.act(seen(), TASK, "bridge")
    with pytest.raises(DataError, match="done=5 of a chunk of 4"):
        policy.act(seen(), TASK, "bridge", done=5)
