"""Small models and batches for these tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vertebra.backbone.registry import load_backbone
from vertebra.config import build
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import Packed
from vertebra.data.samples.samples import Samples
from vertebra.model.model import Model
from vertebra.sequence.batch import Batch, collate
from vertebra.sequence.tokens import TokenSequence
from vertebra.training.config import RunConfig
from vertebra.training.feed import Feed
from vertebra.training.learner import Learner
from vertebra.training.trainer import ExactTrainer
from vertebra.tune.stages import choose


def tiny(name: str = "tiny-llama2", **options: Any) -> Model:
    return Model(load_backbone(name, **{"dtype": "float32", **options}))


def random_batch(rows: list[int], *, seed: int = 0, vocabulary: int = 200, supervised: float = 0.5) -> Batch:
    """Rows of these lengths with random ids, weights of 0, 1 and 2.5 among them."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for length in rows:
        ids = torch.randint(5, vocabulary, (length,), generator=generator).tolist()
        draw = torch.rand(length, generator=generator).tolist()
        weight = [(2.5 if d < supervised / 4 else 1.0) if d < supervised else 0.0 for d in draw]
        weight[-1] = 1.0
        made.append(TokenSequence.of(ids, weight=weight))
    return collate(made, pad_id=0)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


class Words(Samples):
    """Samples of random ids, of random lengths."""

    def __init__(self, count: int = 24, *, longest: int = 12, seed: int = 0, vocabulary: int = 200) -> None:
        rng = np.random.default_rng(seed)
        self.lengths = rng.integers(4, longest + 1, count)
        self.ids = [rng.integers(5, vocabulary, length) for length in self.lengths]
        self.name = f"words-{count}-{longest}-{seed}"

    def vectors(self, index: int, epoch: int = 0) -> dict[str, Any]:
        return {"ids": self.ids[index]}

    def where(self, index: int) -> str:
        return f"row {index}"

    def fingerprint(self) -> str:
        return self.name


def config(**changes: Any) -> RunConfig:
    """A small run without a page at its end, which takes as long as its steps; `optim__lr=…` names a setting inside."""
    tree: dict[str, Any] = {
        "name": "test",
        "model": {"backbone": "tiny-llama2"},
        "data": {"kind": "text", "path": "nowhere"},
        "optim": {"lr": 1e-3, "batch": 2, "warmup": 0},
        "watch": {"every": 2, "report": False},
        "save": {"asynchronous": False},
        "steps": 4,
    }
    for name, value in changes.items():
        place = tree
        *above, last = name.split("__")
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return build(RunConfig, tree)


def trainer(folder: Path, run: RunConfig, *, model: Any = None, samples: Samples | None = None, **options: Any) -> Any:
    """A trainer of this run, on `Words` unless told otherwise."""
    torch.manual_seed(run.seed)
    model = model or tiny(run.model.backbone)
    choose(model, run.tune)
    sampler = Packed(run.optim.batch, 16, seed=run.seed)
    loader = Loader(samples or Words(), sampler, Collator(0), workers=run.data.workers)
    feed = Feed(loader, steps=run.steps or 1, accumulate=run.optim.accumulate)
    folder.mkdir(parents=True, exist_ok=True)
    return ExactTrainer(Learner(model), run, feed, folder, **options)
