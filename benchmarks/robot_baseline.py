"""A policy of `metaworld-five` beside two peers of as many parameters, on the same batches for as many steps: plain behavior
cloning (a CNN a camera and an MLP), and the shape of ACT (robot_act.py). All are asked in the same episodes.

    python benchmarks/robot_baseline.py SET RUN [--peers plain,act] [--steps 1000] [--episodes 50] [--spread 3]

SET is what `vertebra sim collect` wrote, RUN what `vertebra train metaworld-five` left. Prints success with intervals.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from robot_act import Act, distance
from vertebra.action.normalization import normalize, unnormalize
from vertebra.evaluate import EvaluationSettings, evaluate_policy
from vertebra.interop.acting import policy
from vertebra.model.encoders.images import Preparation, prepare_images
from vertebra.training.building import build_model
from vertebra.training.data import build_data
from vertebra.training.recipes import read_recipe

SIZE = 64


class Plain(nn.Module):
    """What a person would write first."""

    def __init__(self, cameras: list[str], sentences: list[str], proprio: int, chunk: int, dims: int) -> None:
        super().__init__()
        self.cameras, self.sentences, self.shape = cameras, sentences, (chunk, dims)
        wide = (3, 32, 64, 96, 128)
        self.eyes = nn.ModuleList(
            nn.Sequential(
                *(layer for a, b in itertools.pairwise(wide) for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.ReLU())),
                nn.Flatten(),
                nn.Linear(128 * (SIZE // 16) ** 2, 128),
                nn.ReLU(),
            )
            for _ in cameras
        )
        self.sentence = nn.Embedding(len(sentences), 32)
        entering = 128 * len(cameras) + proprio + 32
        self.mlp = nn.Sequential(
            nn.Linear(entering, 448), nn.ReLU(), nn.Linear(448, 448), nn.ReLU(), nn.Linear(448, chunk * dims)
        )

    def forward(self, images: list[torch.Tensor], proprio: torch.Tensor, sentence: torch.Tensor) -> torch.Tensor:
        seen = [eye(pixels.float() / 127.5 - 1) for eye, pixels in zip(self.eyes, images, strict=True)]
        return self.mlp(torch.cat([*seen, proprio, self.sentence(sentence)], 1)).view(-1, *self.shape)

    def loss(
        self, images: list[torch.Tensor], proprio: torch.Tensor, sentence: torch.Tensor, goal: Any
    ) -> torch.Tensor:
        return distance(self(images, proprio, sentence), goal)


PEERS = {"plain": Plain, "act": Act}


class Acting:
    """The same as whoever evaluates asks for it."""

    def __init__(self, model: Any, record: Any, statistics: Any) -> None:
        self.model, self.record, self.statistics = model.eval(), record, statistics

    def reset(self) -> None:
        pass

    @torch.no_grad()
    def act(self, observation: Any, instruction: str) -> np.ndarray:
        how = Preparation(size=SIZE)
        images = [torch.from_numpy(prepare_images([observation["images"][one]], how)) for one in self.model.cameras]
        state = np.asarray(observation["proprio"], np.float64)
        own = normalize(state, self.statistics.proprio, self.record.proprio_normalization, proprio=True)
        sentence = torch.tensor([self.model.sentences.index(instruction)])
        made = self.model(images, torch.from_numpy(own).float()[None], sentence)[0].double().numpy()
        return unnormalize(made, self.statistics.action, self.record.normalization)


def trained(shape: Any, data: Any, record: Any, steps: int, lr: float) -> tuple[Any, float]:
    """(the model, CPU seconds)."""
    samples: Any = data.train
    sentences = sorted({one.sentence for one in samples.shown})
    number = [sentences.index(samples.shown[n].sentence) for n, _ in samples._at]
    model = shape(list(record.cameras), sentences, record.proprio, record.chunk, record.dims)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.08)
    loader = data.loader(64, rank=0, world=1)
    began, step = time.process_time(), 0
    while step < steps:
        plan = loader.plan
        for at, batch in enumerate(loader):
            sentence = torch.tensor([number[index] for (index,) in plan.share(at, 0, 1).rows])
            features = batch["features"]
            images = [features[f"image:{name}"]["values"] for name in record.cameras]
            loss = model.loss(images, features["proprio"]["values"], sentence, features["action"]["values"])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rates.step()
            step += 1
            if step == steps:
                break
    return model, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set")
    parser.add_argument("run")
    parser.add_argument("--peers", default="plain,act")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--spread", type=float, default=3.0)
    parser.add_argument("--tasks", default="drawer-open,drawer-close,faucet-open,faucet-close,button-press-topdown")
    parser.add_argument("--out", default="bench-robot")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = read_recipe("metaworld-five", [f"data.path={given.set}"])
    ours = policy(given.run)
    data = build_data(config, build_model(config))
    asked: dict[str, Any] = {"ours": ours}
    print(f"ours: {sum(p.numel() for p in ours.model.parameters()):,} parameters")
    for name in given.peers.split(","):
        torch.manual_seed(0)
        peer, seconds = trained(PEERS[name], data, ours.record, given.steps, given.lr)
        count = sum(p.numel() for p in peer.parameters())
        print(f"{name}: {count:,} parameters, trained in {seconds:.0f} CPU s", flush=True)
        asked[name] = Acting(peer, ours.record, ours.statistics())
    options = {**ours.record.view, "spread": given.spread, "cameras": tuple(ours.record.cameras)}
    settings = EvaluationSettings(tasks=tuple(given.tasks.split(",")), episodes=given.episodes, options=options)
    for name, one in asked.items():
        found = evaluate_policy(one, settings, Path(given.out) / name, films=False).arms[0]
        print(name, f"{found.mean.rate:.1%} [{found.mean.low:.1%} to {found.mean.high:.1%}]")
        for task, rate in found.tasks.items():
            print(f"    {task:24} {rate.successes}/{rate.episodes}")


if __name__ == "__main__":
    main()
