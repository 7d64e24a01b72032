"""A policy, from the robot's own numbers to the robot's own numbers: statistics, bins, a record, training, acting, and a
golden pair in the folder that every load computes again.

Run it: python examples/policy.py [FOLDER]
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import vertebra as vt
from vertebra.action import ActionRecord, Counter, DatasetStatistics, action_tokens, normalize, token_ids, uniform_bins
from vertebra.model import PatchEncoder, new_part
from vertebra.policies import check_golden, golden_pair, read_golden, write_golden

TASK = "Reach the bar."
CENTIMETERS = np.linspace(10, 45, 8)[:, None]  # where the arm goes for a bar at each of eight places


def seen(place):
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).rectangle((place * 8, 0, place * 8 + 7, 63), fill="blue")
    return image


def made():
    """A language model, a camera before it, a token for each of sixteen bins, and how all that acts."""
    torch.manual_seed(0)
    backbone = vt.load_backbone("tiny-llama2")
    vt.grow_vocabulary(backbone, action_tokens(16))
    camera = new_part(backbone, PatchEncoder(32, image_size=64, patch_size=16))
    counter = Counter(1)
    counter.add(CENTIMETERS)
    units = DatasetStatistics(action=counter.moments(), quantiles="exact")
    act, *ids = token_ids(backbone.tokenizer.get_vocab(), action_tokens(16))
    record = ActionRecord(
        head="tokens", dims=1, bins=uniform_bins(ids, ends="exact").to_json(), lead=(act,), normalization="min-max",
        statistics={"bars": units.to_json()},
    )  # fmt: skip
    return vt.Model(backbone, {"image": camera}, record={"policy": record.to_json()})


def sample(policy, place):
    """What the model reads of one episode, with the action as it is to say it."""
    record, moments = policy.record, policy.statistics().action
    ids = policy.bins.encode(normalize(CENTIMETERS[place], moments, record.normalization))
    said = [{"type": "image"}, {"type": "text", "text": record.asked(TASK)}]
    action = {"type": "action", "ids": [*record.lead, *ids.tolist()]}
    row = policy.model.render([{"role": "user", "content": said}, {"role": "assistant", "content": [action]}])
    return row, policy.model.prepare({"image": [seen(place)]})


def main(folder):
    model = made()
    policy = vt.policy(model)
    rows, features = zip(*(sample(policy, place) for place in range(8)), strict=True)
    batch = model.train().collate(rows, features)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(150):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step:3d}  loss {loss.item():.3f}") if step % 30 == 0 else None
    model.eval().save(folder, overwrite=True)
    write_golden(golden_pair(vt.policy(model), seen(3), TASK), folder)

    policy = vt.policy(folder)  # a warning, if the golden action does not hold here
    chunks = policy.act_many([seen(place) for place in range(8)], TASK)
    print("centimeters:", " ".join(f"{chunk[0, 0]:.0f}" for chunk in chunks))
    print("how sure of the fourth:", f"{policy.decide(seen(3), TASK).confidence[0, 0]:.2f}")

    file = folder / "vertebra.json"  # what goes wrong most often: the statistics of another robot
    record = json.loads(file.read_text())
    record["record"]["policy"]["statistics"]["bars"]["action"]["max"] = [90.0]
    file.write_text(json.dumps(record))
    print(check_golden(vt.policy(folder, golden="skip"), read_golden(folder)))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
