"""Folders of OpenVLA's and OFT's as policies: made ones against the plain way, the original's against its own numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vertebra
from tests.interop.openvla.made import made_folder, made_oft
from tests.policies.models import image
from vertebra.action.bins import openvla_bins
from vertebra.checks.run import check
from vertebra.model.heads.interface import SeenByHeads, chunks_of
from vertebra.policies.golden import check_golden, golden_pair
from vertebra.policies.observation import Observation
from vertebra.policies.policy import Policy

DATA = Path(os.environ.get("VERTEBRA_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
there = pytest.mark.skipif(not (DATA / "openvla-tiny").is_dir(), reason=f"the original's folders are not at {DATA}")
TASK = "Pick up the RED block"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_folder(tmp_path_factory.mktemp("openvla") / "made")


@pytest.fixture(scope="module")
def policy(folder) -> Policy:
    return vertebra.policy(folder, dtype="float32")


def key_of(policy: Policy) -> str:
    return policy.keys[0]


def test_each_token_is_the_best_of_the_last_256(policy):
    """One forward over the whole row for each number; the original's formulas of ids and of units."""
    key = key_of(policy)
    made = policy.decide(image(1, 96), TASK, key)
    row = policy.prompts.row(Observation.of(image(1, 96)), TASK, None)
    text = row.sequence.ids[row.sequence.slot[:, 0] < 0]
    asked = f"In: What action should the robot take to {TASK.lower()}?\nOut:"
    assert text.tolist() == [*policy.model.tokenizer(asked).input_ids, *policy.record.lead]
    batch = policy.model.collate([row.sequence], [row.features])
    last = policy.record.bins["vocabulary"]
    ids = []
    with torch.no_grad():
        for _ in range(policy.record.dims):
            logits = policy.model(**batch, return_loss=False, logits_to_keep=1).logits[0, -1]
            ids.append(int(logits[last - 256 : last].argmax()) + last - 256)
            batch = batch.append(torch.tensor([ids[-1:]]))
    assert made.ids[0].tolist() == ids
    edges = np.linspace(-1, 1, 256)
    centers = (edges[:-1] + edges[1:]) / 2
    values = centers[np.clip(last - np.array(ids) - 1, 0, 254)]
    stats = policy.record.statistics[key]["action"]
    low, high = np.array(stats["q01"]), np.array(stats["q99"])
    expected = np.where(stats.get("mask", True), 0.5 * (values + 1) * (high - low) + low, values)
    assert np.allclose(made.chunk[0], expected, atol=1e-7)


def test_robots_in_a_batch(policy):
    key, images = key_of(policy), [image(n, 64) for n in range(3)]
    together = policy.act_many(images, [TASK, "go", "open the drawer and close it again"], key)
    alone = [
        policy.act(one, text, key)
        for one, text in zip(images, [TASK, "go", "open the drawer and close it again"], strict=True)
    ]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


def test_checks_take_their_folders(folder, policy):
    report = check(folder, only=["looks", "bos"], dtype="float32")
    assert [row.status for row in report.results] == ["pass", "pass"]
    pair = golden_pair(policy, image(2, 64), TASK, key_of(policy))
    assert check_golden(vertebra.policy(folder, dtype="float32"), pair).holds


def test_oft_is_one_pass_that_sees_both_ways(tmp_path):
    policy = vertebra.policy(made_oft(tmp_path / "oft"), dtype="float32")
    record, model = policy.record, policy.model
    rng = np.random.default_rng(0)
    seen = {"images": {name: image(n, 64) for n, name in enumerate(record.cameras)}}
    if record.proprio:
        seen["proprio"] = rng.normal(size=record.proprio)
    key = key_of(policy)
    made = policy.decide(seen, TASK, key)
    row = policy.prompts.row(Observation.of(seen), TASK, policy._proprio(Observation.of(seen), policy.statistics(key)))
    names = [row.sequence.segments[n] if n >= 0 else "" for n in row.sequence.slot[:, 0]]
    order = [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]
    assert order[:1] == [""]
    assert order[-3:] == ["", "action", ""]
    assert row.sequence.ids[-1] == 2
    batch = model.collate([row.sequence], [row.features])
    batch["block"] = torch.ones_like(batch["block"])
    head: Any = model.heads["action"]
    with torch.no_grad():
        hidden = model(**batch, return_loss=False, output_hidden_states=True).hidden_states[-1]
        expected = head.actions(SeenByHeads(batch=batch, hidden=hidden), chunks_of(batch, "action", head.slots))[0]
    assert np.allclose(made.values, expected.numpy(), atol=1e-5)


def gold(name: str) -> tuple[dict[str, Any], Any]:
    return json.loads((DATA / f"{name}-gold.json").read_text()), np.load(DATA / f"{name}-gold.npz")


@there
def test_the_originals_tokens_and_actions():
    reported, arrays = gold("openvla-tiny")
    policy = vertebra.policy(DATA / "openvla-tiny", dtype="float32")
    tasks = [case["prompt"].split("take to ")[1].split("?")[0] for case in reported["cases"]]
    for number, (case, task) in enumerate(zip(reported["cases"], tasks, strict=True)):
        made = policy.decide(arrays[f"image{number}"], task, case["unnorm_key"])
        assert made.ids[0].tolist() == case["action_ids"]
        assert np.abs(made.chunk[0] - case["action"]).max() <= 1e-6
        assert np.allclose(made.values[0], arrays[f"normalised_action{number}"], atol=1e-7)
    for name, ids in reported["all pairs"].items():
        prompt, shown = (int(part[-1]) for part in name.split())
        assert policy.decide(arrays[f"image{shown}"], tasks[prompt], policy.keys[0]).ids[0].tolist() == ids


@there
def test_the_originals_labels_of_485_actions():
    """The original writes ids as text and encodes that: on its vocabulary the same ids come back, after the lone `▁`."""
    tokenizer = vertebra.load(DATA / "openvla-tiny").tokenizer
    actions = np.random.default_rng(0).normal(0, 0.8, (485, 6))
    actions[0], actions[1], actions[2] = -1, 1, 0
    edges = np.linspace(-1.0, 1.0, 256)
    bins = openvla_bins(32000)
    for action in actions:
        text = tokenizer.decode((32000 - np.digitize(np.clip(action, -1, 1), edges)).tolist())
        ids = tokenizer(f"In: What action should the robot take to go?\nOut: {text}</s>").input_ids
        labels = [-100] * (len(ids) - 7) + ids[-7:]
        assert labels[-7:] == [*bins.encode(action).tolist(), 2]
        assert ids[-8] == 29871


@there
def test_ofts_actions():
    reported, arrays = gold("openvla-oft-tiny")
    policy = vertebra.policy(DATA / "openvla-oft-tiny", dtype="float32")
    seen = {"images": {"image": arrays["image0"], "wrist": arrays["wrist0"]}, "proprio": arrays["state0"]}
    made = policy.decide(seen, reported["cases"][0]["task"])
    assert np.abs(made.actions - arrays["actions0"]).max() <= 1e-5
    assert np.abs(made.values - arrays["normalised_actions0"]).max() <= 1e-5
    assert np.array_equal(arrays["state0"], np.load(DATA / "openvla-oft-tiny-gold.npz")["state0"])
