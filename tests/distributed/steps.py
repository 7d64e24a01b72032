"""What one step sends and computes: gradients of unequal micro-batches in fp64, collectives in each backward, FSDP1."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

from tests.model import test_flow, test_heads
from tests.model.models import text
from tests.training.models import Words, config, tiny, trainer
from vertebra.backbone.registry import load_backbone
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import Packed
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.fresh import new_part, new_queries
from vertebra.model.model import Model
from vertebra.sequence.batch import collate
from vertebra.sequence.loss import count_items
from vertebra.sequence.tokens import TokenSequence
from vertebra.training.learner import Learner
from vertebra.training.optim import make_optimizer
from vertebra.training.scale.sharding import shard
from vertebra.tune.stages import choose


class Weighed(Words):
    """Answers of every length, words that count 2.5 times, and rows with a single supervised word."""

    def vectors(self, index: int, epoch: int = 0) -> dict[str, Any]:
        ids = self.ids[index]
        weight = np.random.default_rng(index).choice([0.0, 0.0, 1.0, 2.5], len(ids)).astype(np.float32)
        weight[-1] = 1.0
        return {"ids": ids, "weight": weight}


def fresh() -> None:
    """Forget the former run, as another process would."""
    AcceleratorState._reset_state()
    GradientState._reset_state()
    PartialState._shared_state.clear()


def gradients(folder: Path, dtype: str, *, batch: int, accumulate: int, **changes: Any) -> dict[str, torch.Tensor]:
    """The gradients of the first step, whole, and its loss."""
    fresh()
    run = config(optim__batch=batch, optim__accumulate=accumulate, optim__clip=0, steps=1, watch__every=1, **changes)
    made = trainer(folder, run, model=tiny(dtype=dtype), samples=Weighed(40))
    found: dict[str, torch.Tensor] = {}
    plain = made.before_optimizer

    def look() -> None:
        plain()
        for name, parameter in made.learner.model.named_parameters():
            grad = parameter.grad
            found[name] = (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).clone()
        found["loss"] = torch.tensor(made.interval.last_loss, dtype=torch.float64)

    made.before_optimizer = look
    made.train()
    return found


def on_two(folder: Path) -> None:
    """2 × 4, and 2 × (2 + 2), copied and in shards."""
    for dtype in ("float64", "float32"):
        for kind in ("ddp", "fsdp"):
            for accumulate in (1, 2):
                name = f"{dtype}-{kind}-{accumulate}"
                found = gradients(
                    folder / name, dtype, batch=4 // accumulate, accumulate=accumulate, parallel__kind=kind
                )
                if dist.get_rank() == 0:
                    torch.save(found, folder / f"{name}.pt")


KINDS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {"parallel__kind": "fsdp"},
    "fsdp, whole gradients": {"parallel__kind": "fsdp", "parallel__whole_gradients": True},
    "hybrid": {"parallel__kind": "fsdp", "parallel__hybrid": 2},
}


def sent(folder: Path) -> None:
    """How often each backward of four micro-batches reduces over ranks: (all-reduces, reduce-scatters)."""
    counts: dict[str, list[Any]] = {}
    for name, changes in KINDS.items():
        fresh()
        if (name == "hybrid") != (dist.get_world_size() == 4):
            continue
        run = config(optim__batch=1, optim__accumulate=4, steps=1, save__every=0, **changes)
        made = trainer(folder / f"sent-{name}", run, samples=Words(40))
        seen: list[Any] = []
        plain = made.accelerator.backward

        def backward(loss: torch.Tensor, seen: list = seen, plain: Any = plain, **options: Any) -> None:
            with profile(activities=[ProfilerActivity.CPU]) as looked:
                plain(loss, **options)
            names = [event.name for event in looked.events()]
            seen.append([sum(n == "c10d::allreduce_" for n in names), sum("reduce_scatter" in n for n in names)])

        made.accelerator.backward = backward
        made.train()
        counts[name] = seen
    if dist.get_rank() == 0:
        (folder / f"sent-{dist.get_world_size()}.json").write_text(json.dumps(counts))


def fsdp1(folder: Path) -> None:
    """Three steps under FSDP1, wrapped by the policy of the backbone's interface; its losses, and how it was wrapped."""
    fresh()
    rank, world = dist.get_rank(), dist.get_world_size()
    model = tiny()
    wrapped = FullyShardedDataParallel(
        Learner(model),
        auto_wrap_policy=model.backbone.get_fsdp_wrapping_policy(),
        device_id=torch.device("cpu"),
        use_orig_params=True,
    )
    units = [m for m in wrapped.modules() if isinstance(m, FullyShardedDataParallel) and m is not wrapped]
    run = config(optim__batch=8, optim__schedule="constant")
    optimizer = make_optimizer(wrapped, run.optim)
    loader = Loader(Words(40), Packed(8 // world, 16, seed=run.seed), Collator(0), rank=rank, world=world)
    losses = []
    for _, batch in zip(range(3), loader, strict=False):
        items = count_items(batch).double()
        dist.all_reduce(items)
        loss = wrapped(**batch, num_items_in_batch=items)["loss"]
        (loss * world).backward()
        wrapped.clip_grad_norm_(run.optim.clip)
        optimizer.step()
        optimizer.zero_grad()
        total = loss.detach().double()
        dist.all_reduce(total)
        losses.append(float(total))
    if rank == 0:
        wraps = all(isinstance(m.module, model.backbone.transformer_layer_cls) for m in units)
        reported = {"losses": losses, "units": len(units), "layers": len(model.backbone.layers), "only layers": wraps}
        (folder / "fsdp1.json").write_text(json.dumps(reported))


def unlike(folder: Path) -> None:
    """Rank 0 sees images, rank 1 text alone: the largest difference from both in one process, over two steps."""
    fresh()
    rank, world = dist.get_rank(), dist.get_world_size()
    reported: dict[str, float] = {}
    for kind in ("ddp", "fsdp"):
        torch.manual_seed(0)  # ranks draw the same
        backbone = load_backbone("tiny-llama2", dtype="float32")
        encoder = PatchEncoder(8, image_size=8, patch_size=4)
        model = Model(backbone, {"image": new_part(backbone, encoder), "action": new_queries(backbone, 2)})
        choose(model, config(tune__stage="full-finetune").tune)
        alone = Learner(copy.deepcopy(model))
        slot = [(0, k) if k < 4 else (-1, -1) for k in range(12)]
        ids = list(range(5, 17))
        with_image = TokenSequence.of(ids, target=ids, weight=1.0, slot=slot, segments=("image",))
        pixels = np.full((1, 3, 8, 8), 77, np.uint8)
        batches = [
            collate([with_image], [{"image": pixels}], pad_id=0),
            collate([TokenSequence.of(ids[:7], weight=1.0)], pad_id=0),
        ]
        items = sum(count_items(batch).double() for batch in batches)
        run = config(parallel__kind=kind)
        learner = Learner(model)
        wrapped: Any = (
            DistributedDataParallel(learner) if kind == "ddp" else shard(learner, run, torch.device("cpu"), world)
        )
        for _ in range(2):
            for batch in batches:
                alone(**batch, num_items_in_batch=items)["loss"].backward()
            (wrapped(**batches[rank], num_items_in_batch=items)["loss"] * world).backward()
        expected = {name: p.grad for name, p in alone.named_parameters()}
        largest = 0.0
        for name, parameter in learner.named_parameters():
            grad: Any = parameter.grad
            grad = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
            whole = expected[name]
            if name == "model.parts.action.weight":  # nobody has actions
                whole = torch.zeros_like(parameter.full_tensor() if kind == "fsdp" else parameter)
            largest = max(largest, float((grad - whole).abs().max()))
        reported[kind] = largest
    if rank == 0:
        (folder / "unlike.json").write_text(json.dumps(reported))


def heads(folder: Path) -> None:
    """Rank 0 has chunks of actions, rank 1 words alone: the largest difference from both in one process."""
    fresh()
    rank, world = dist.get_rank(), dist.get_world_size()
    reported: dict[str, float] = {}
    for kind, made in (("l1", test_heads), ("flow", test_flow)):
        for parallel in ("ddp", "fsdp"):
            model = made.acting()
            model.heads.eval()  # flow then draws the same everywhere
            choose(model, config(tune__stage="full-finetune").tune)
            batches = [made.batch_of(model, *made.ROWS[:2]), model.collate([text(5, 1, weight=1.0)])]
            alone = Learner(copy.deepcopy(model))
            items = sum(count_items(batch).double() for batch in batches)
            for batch in batches:
                alone(**batch, num_items_in_batch=items)["loss"].backward()
            learner = Learner(model)
            run = config(parallel__kind=parallel)
            wrapped: Any = (
                DistributedDataParallel(learner)
                if parallel == "ddp"
                else shard(learner, run, torch.device("cpu"), world)
            )
            (wrapped(**batches[rank], num_items_in_batch=items)["loss"] * world).backward()
            largest = 0.0
            for (name, parameter), whole in zip(learner.named_parameters(), alone.parameters(), strict=True):
                grad: Any = parameter.grad
                assert whole.grad is not None, name
                grad = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
                largest = max(largest, float((grad - whole.grad).abs().max()))
            reported[f"{kind}, {parallel}"] = largest
    if rank == 0:
        (folder / "heads.json").write_text(json.dumps(reported))
