"""Against numbers of the original code, where its folders are: VERTEBRA_SHARED_DATA, or `shared/data` beside the checkout."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.interop.openvla.rows import row
from vertebra import load, policy
from vertebra.action.bins import Bins
from vertebra.action.record import ActionRecord
from vertebra.backbone.weights import mapped_tensors
from vertebra.errors import CheckpointError
from vertebra.interop import write_openvla
from vertebra.model.model import Model

DATA = Path(os.environ.get("VERTEBRA_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data")
OPENVLA, OFT = DATA / "openvla-tiny", DATA / "openvla-oft-tiny"
LONE = 29871
pytestmark = pytest.mark.skipif(not OPENVLA.is_dir(), reason=f"the original's folders are not at {DATA}")


def gold(name: str) -> tuple[dict[str, Any], Any]:
    return json.loads((DATA / f"{name}-gold.json").read_text()), np.load(DATA / f"{name}-gold.npz")


@pytest.fixture(scope="module")
def model() -> Model:
    return load(OPENVLA, dtype="float32")


def difference(found: torch.Tensor, expected: np.ndarray) -> float:
    return float((found - torch.from_numpy(expected)).abs().max())


@torch.inference_mode()
@pytest.mark.parametrize("case", [0, 1])
def test_openvla(case: int, model: Model):
    reported, arrays = gold("openvla-tiny")
    items = model.prepare({"image": [arrays[f"image{case}"]]})
    towers = model.parts["image"].encoder.towers
    pixels = torch.cat([tower.normalized(torch.from_numpy(items["image"])) for tower in towers], 1)
    assert difference(pixels, arrays[f"pixel_values{case}"]) < 1e-6
    assert (
        difference(model.parts["image"].encoder(torch.from_numpy(items["image"]))[0], arrays[f"patches{case}"]) < 1e-5
    )
    record = ActionRecord.of(model.record)
    prompt = reported["cases"][case]["prompt"]
    assert prompt == record.asked(
        prompt.removeprefix("In: What action should the robot take to ").removesuffix("?\nOut:")
    )
    ids = model.tokenizer(prompt).input_ids
    assert ids == reported["cases"][case]["input_ids"]
    batch = model.collate([row(ids, [("image", 256)])], [items])
    expected = arrays[f"logits_last{case}"]
    assert difference(model(**batch, logits_to_keep=4).logits[0], expected) < 1e-5 * np.abs(expected).max()
    made: list[int] = []
    for _ in range(7):
        batch = model.collate([row([*ids, *record.lead, *made], [("image", 256)])], [items])
        made.append(int(model(**batch, logits_to_keep=1).logits[0, -1].argmax()))
    assert made == reported["cases"][case]["action_ids"]
    numbers = Bins.of(record.bins or {}).decode(np.asarray(made))
    assert np.abs(numbers - arrays[f"normalised_action{case}"]).max() < 1e-9


@pytest.mark.parametrize("case", [0, 1])
def test_openvla_s_actions(case: int, model: Model):
    """By the policy: constrained, with a cache, and all pairs of prompt and image as one batch."""
    reported, arrays = gold("openvla-tiny")
    acts = policy(model)
    entry = reported["cases"][case]
    task = entry["prompt"].removeprefix("In: What action should the robot take to ").removesuffix("?\nOut:")
    found = acts.act(arrays[f"image{case}"], task, entry["unnorm_key"])
    assert np.abs(found[0] - entry["action"]).max() < 1e-6
    images = [arrays["image0"], arrays["image1"]]
    both = acts.decide_many(images, task, entry["unnorm_key"])
    for number, decision in enumerate(both):
        assert decision.ids is not None
        assert decision.ids[0].tolist() == reported["all pairs"][f"prompt{case} image{number}"]


def test_openvla_is_written_back(model: Model, tmp_path: Path):
    from tests.interop.openvla.test_write import same

    same(write_openvla(model, tmp_path / "out"), OPENVLA)


@torch.inference_mode()
@pytest.mark.parametrize("proprio", [True, False])
def test_oft(proprio: bool):
    _, arrays = gold("openvla-oft-tiny")
    model = load(OFT, dtype="float32")
    record = ActionRecord.of(model.record)
    assert (record.head, record.chunk, record.dims, record.cameras) == ("l1", 8, 7, ("image", "wrist"))
    items = model.prepare({"image": [arrays["image0"]], "image:wrist": [arrays["wrist0"]]})
    pixels = torch.cat(
        [
            tower.normalized(torch.from_numpy(items[name]))
            for name in items
            for tower in model.parts["image"].encoder.towers
        ],
        1,
    )
    assert difference(pixels, arrays["pixel_values0"]) < 1e-6
    slots = [("image", 256), ("image:wrist", 256)]
    if proprio:
        items["proprio"] = arrays["normalised_state0"][None].astype(np.float32)
        slots.append(("proprio", 1))
    ids = [*arrays["input_ids0"][0].tolist(), *record.lead]
    batch = model.collate([row(ids, slots, 56, record.tail)], [items])
    out = model(**batch, return_loss=False, logits_to_keep=0, output_hidden_states=True)
    at = torch.arange(len(batch["input_ids"][0]))[-58:-2]
    if proprio:
        states = out.hidden_states[-1][0, at]
        assert difference(states, arrays["action_hidden0"]) < 1e-5 * np.abs(arrays["action_hidden0"]).max()
        assert difference(model.heads["action"](states[None])[0], arrays["normalised_actions0"]) < 1e-5
        return
    statistics = record.statistics["libero_spatial_no_noops"]["action"]
    low, high, mask = (np.asarray(statistics[name]) for name in ("q01", "q99", "mask"))
    numbers = Bins.of({"scheme": "openvla", "vocabulary": 32000, "count": 256})
    made = numbers.decode(out.logits[0, at].argmax(-1).numpy()).reshape(8, 7)
    actions = np.where(mask, 0.5 * (made + 1) * (high - low + 1e-8) + low, made)
    assert np.abs(actions - arrays["discrete_actions_no_proprio0"]).max() < 1e-6


def test_oft_s_actions():
    """By the policy, in the robot's units; alone and as one of two robots."""
    reported, arrays = gold("openvla-oft-tiny")
    acts = policy(OFT, dtype="float32")
    seen = {"images": {"image": arrays["image0"], "wrist": arrays["wrist0"]}, "proprio": arrays["state0"]}
    task = reported["cases"][0]["task"]
    assert np.abs(acts.act(seen, task) - arrays["actions0"]).max() < 1e-5
    other = {"images": {"image": arrays["wrist0"], "wrist": arrays["image0"]}, "proprio": -arrays["state0"]}
    both = acts.act_many([other, seen], ["Open the drawer", task])
    assert np.abs(both[1] - arrays["actions0"]).max() < 1e-5
    assert np.abs(both[0] - acts.act(other, "Open the drawer")).max() < 1e-5


def test_oft_s_adapter_over_its_base(tmp_path: Path):
    """The folder without its weights: its adapter over `openvla-tiny` is what they hold, but for OFT's adding in bf16."""
    bare = tmp_path / "oft"
    shutil.copytree(
        OFT, bare, ignore=shutil.ignore_patterns("*.safetensors.index.json", "model-*", "config.json", "*.py")
    )
    found = mapped_tensors(write_openvla(load(bare, base=OPENVLA), tmp_path / "out"))
    expected, base = mapped_tensors(OFT), mapped_tensors(OPENVLA)
    assert found.keys() == expected.keys()
    changed = 0
    for name, tensor in expected.items():
        difference = (found[name].float() - tensor.float()).abs()
        assert float(difference.max()) <= 2**-7 * float(tensor.float().abs().max()), name
        changed += not torch.equal(found[name], base[name])
    assert changed == 57
    with pytest.raises(CheckpointError, match="is merged into"):
        load(bare, base=OFT)
