"""The peak memory of real training steps, each in a process of its own: `python -m tests.training.planning.measured CASE …`.

Prints, as JSON, the bytes above what a process held before the model was there. Everything is imported once, and every
case (of two ranks where it is sharded) is a fork.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from tests.training.models import config
from vertebra.model.encoders.vision import VisionTower
from vertebra.sequence.batch import Batch, collate
from vertebra.sequence.tokens import TokenSequence
from vertebra.training import building as models
from vertebra.training.learner import Learner
from vertebra.training.optim import make_optimizer
from vertebra.training.planning import shapes
from vertebra.training.scale.sharding import shard
from vertebra.tune.stages import choose

SHAPE = {
    "hidden_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "intermediate_size": 1024,
    "vocab_size": 8000,
}
TOWER = {
    "model_type": "siglip_vision_model",
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "patch_size": 14,
    "image_size": 112,
}
shapes.TOWERS["tower"] = (TOWER, 112)
IMAGE = {"encoder": "vision", "name": "tower", "projector": "gelu3"}
CASES: dict[str, dict[str, Any]] = {
    "full": {"optim__batch": 4, "data__block": 256},
    "full, short rows": {"optim__batch": 2, "data__block": 128},
    "last block": {"tune__stage": "last-blocks", "optim__batch": 2, "data__block": 256},
    "lora": {"tune__stage": "lora", "optim__batch": 4, "data__block": 256},
    "checkpointing": {"optim__checkpointing": True, "optim__batch": 4, "data__block": 256},
    "images": {"model__image": IMAGE, "tune__stage": "full-finetune", "optim__batch": 4, "data__block": 256},
    "images, align": {"model__image": IMAGE, "tune__stage": "align", "optim__batch": 4, "data__block": 256},
    "fsdp": {"parallel__kind": "fsdp", "optim__batch": 2, "data__block": 128},
    "fsdp, checkpointing": {
        "parallel__kind": "fsdp",
        "optim__checkpointing": True,
        "optim__batch": 2,
        "data__block": 256,
    },
}


def run_of(case: str) -> Any:
    return config(model__scratch=True, model__overrides=SHAPE, model__dtype="float32", **CASES[case])


def ranks_of(case: str) -> int:
    return 2 if case.startswith("fsdp") else 1


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


class Peak(threading.Thread):
    """The highest resident size, looked at every half millisecond."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest, self.ended = 0, False

    def run(self) -> None:
        while not self.ended:
            self.highest = max(self.highest, resident())
            time.sleep(0.0005)


def batch_of(model: Any, rows: int, length: int) -> Batch:
    """Rows that are full and supervised, an image in each where the model sees any."""
    ids = np.random.randint(5, 200, (rows, length))
    part = dict(model.parts.items()).get("image")
    if part is None:
        return collate([TokenSequence.of(row, weight=1.0) for row in ids], pad_id=0)
    slot = [(0, k) if k < part.slots else (-1, -1) for k in range(length)]
    made = [TokenSequence.of(row, target=row, weight=1.0, slot=slot, segments=("image",)) for row in ids]
    items = part.encoder.sample(rows, torch.Generator()).numpy()
    return collate(made, [{"image": items[n : n + 1]} for n in range(rows)], pad_id=0)


def step(learner: Any, optimizer: Any, batch: Batch) -> None:
    learner(**batch, num_items_in_batch=torch.tensor(100.0))["loss"].backward()
    optimizer.step()
    optimizer.zero_grad()


def built(run: Any, world: int) -> Any:
    model, waiting = models.build_late(run) if world > 1 else (models.build_model(run), None)
    choose(model, run.tune)
    if run.optim.checkpointing:
        model.enable_gradient_checkpointing()
    learner = Learner(model.train(), late=waiting)
    return shard(learner, run, torch.device("cpu"), world) if world > 1 else learner


def measure(case: str, world: int) -> int:
    # libraries that load on first use, and their scratch, are no part of the model
    small = config(model__backbone="tiny-llama2", **{k: v for k, v in CASES[case].items() if k.startswith("parallel")})
    learner = built(small, world)
    step(learner, make_optimizer(learner, small.optim), batch_of(learner.model, 1, 16))
    del learner
    gc.collect()
    run = run_of(case)
    before = resident()
    learner = built(run, world)
    optimizer = make_optimizer(learner, run.optim)
    batch = batch_of(learner.model, run.optim.batch, run.data.block)
    peak = Peak()
    peak.start()
    for _ in range(2):
        step(learner, optimizer, batch)
    peak.ended = True
    peak.join()
    return peak.highest - before


def fork(case: str, rank: int, world: int, folder: Path) -> int:
    """One process of a case; it leaves what it measured in a file."""
    child = os.fork()
    if child:
        return child
    try:
        if world > 1:
            dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
        (folder / str(rank)).write_text(str(measure(case, world)))
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(cases: list[str]) -> None:
    models.image_encoder = lambda image: VisionTower(**shapes.tower_shape(image.name))  # type: ignore[assignment, misc]
    found: dict[str, int] = {}
    for case in cases:
        world = ranks_of(case)
        with tempfile.TemporaryDirectory() as folder:
            for child in [fork(case, rank, world, Path(folder)) for rank in range(world)]:
                if os.waitpid(child, 0)[1]:
                    raise SystemExit(f"{case} failed")
            found[case] = max(int((Path(folder) / str(rank)).read_text()) for rank in range(world))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:] or list(CASES))
