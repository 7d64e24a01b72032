"""The side of the comparison that runs where the real `lerobot` is installed: it reads a set of ours, or writes one.

python lerobot_side.py read FOLDER OUT.npz          python lerobot_side.py write FOLDER OUT.npz
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

warnings.simplefilter("ignore")
# torchvision without its compiled part (the index has none for the CPU's torch) misses this one name
library = torch.library.Library("torchvision", "FRAGMENT")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

TOP = "observation.images.top"


def read(folder: Path) -> dict[str, Any]:
    data = LeRobotDataset("ours/set", root=folder, video_backend="pyav")
    assert data.meta.total_frames == len(data)
    rows = [data[at] for at in range(len(data))]
    columns = {
        key: np.stack([np.asarray(row[key]) for row in rows])
        for key in rows[0]
        if key not in ("task", *data.meta.camera_keys)
    }
    for key in data.meta.camera_keys:
        columns[key] = np.stack([(row[key] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy() for row in rows])
    return columns | {"task": np.array([row["task"] for row in rows]), "q99": data.meta.stats["action"]["q99"]}


def write(folder: Path) -> dict[str, Any]:
    features = {
        TOP: {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
        "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    }
    data = LeRobotDataset.create("theirs/set", 10, features, root=folder, robot_type="so100", use_videos=True)
    rng, kept = np.random.default_rng(3), []
    y, x = np.mgrid[:64, :96]
    for episode, length in enumerate((4, 9, 6)):
        for frame in range(length):
            phase = 0.4 * (frame + 20 * episode)
            image = np.stack(
                [127 + 100 * np.sin(x / 15 + phase), 127 + 100 * np.cos(y / 9 + phase), 20 * frame + 0 * x], -1
            )
            row = {
                TOP: image.astype(np.uint8),
                "observation.state": rng.normal(size=3).astype(np.float32),
                "action": rng.normal(size=2).astype(np.float32),
                "next.done": np.array([frame == length - 1]),
            }
            kept.append(row)
            data.add_frame({**row, "task": ("lift", "drop")[episode % 2]})
        data.save_episode()
    data.finalize()
    return {key: np.stack([row[key] for row in kept]) for key in features}


if __name__ == "__main__":
    done = {"read": read, "write": write}[sys.argv[1]](Path(sys.argv[2]))
    np.savez(sys.argv[3], **done)
