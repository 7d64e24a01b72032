"""A policy, from a robot's own numbers to its own numbers: statistics, bins, a record, training, acting in a batch, and a
golden pair in the folder, which every load computes again.

Run it: python examples/policy.py [FOLDER]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import vertebra as vt
from vertebra.action import ActionRecord, Counter, DatasetStatistics, action_tokens, normalize, token_ids, uniform_bins
from vertebra.model import PatchEncoder, new_part
from vertebra.policies import golden_pair, write_golden

TASK, PLACES = "Reach the bar.", range(8)
CENTIMETERS = np.linspace(10, 45, 8)[:, None]  # where the arm goes for a bar at each place


def seen(place):
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).rectangle((place * 8, 0, place * 8 + 7, 63), fill="blue")
    return image


def main(folder):
    torch.manual_seed(0)
    backbone = vt.load_backbone("tiny-llama2")
    vt.grow_vocabulary(backbone, action_tokens(16))
    act, *ids = token_ids(backbone.tokenizer.get_vocab(), action_tokens(16))
    bins, counter = uniform_bins(ids, ends="exact"), Counter(1)
    counter.add(CENTIMETERS)
    units = DatasetStatistics(action=counter.moments(), quantiles="exact").to_json()
    record = ActionRecord(head="tokens", dims=1, bins=bins.to_json(), lead=(act,), statistics={"bars": units})
    camera = new_part(backbone, PatchEncoder(32, image_size=64, patch_size=16))
    model = vt.Model(backbone, {"image": camera}, record={"policy": record.to_json()})
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": TASK}]}
    said = bins.encode(normalize(CENTIMETERS, counter.moments()))
    answers = [{"role": "assistant", "content": [{"type": "action", "ids": [act, *row]}]} for row in said]
    features = [model.prepare({"image": [seen(place)]}) for place in PLACES]
    batch = model.collate([model.render([turn, answer]) for answer in answers], features)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
    for _ in range(150):
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    write_golden(golden_pair(vt.policy(model), seen(3), TASK), model.save(folder, overwrite=True))
    policy = vt.policy(folder, golden="require")  # an error, if the action of the golden pair were another here
    print("centimeters:", " ".join(f"{chunk[0, 0]:.0f}" for chunk in policy.act_many(list(map(seen, PLACES)), TASK)))
    print(f"how sure of the fourth: {policy.decide(seen(3), TASK).confidence[0, 0]:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
