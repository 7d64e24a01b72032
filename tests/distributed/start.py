"""Sharded starts: equal to a whole start bit for bit, and without a whole model in any process."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.training.models import config
from vertebra.backbone.registry import load_backbone
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.fresh import new_part
from vertebra.model.model import Model
from vertebra.training.building import build_late, build_model
from vertebra.training.learner import Learner
from vertebra.training.scale.sharding import shard
from vertebra.tune.stages import choose

CPU = torch.device("cpu")
IMAGE = {"encoder": "patches", "width": 16, "image_size": 16, "patch_size": 8}
STARTS: dict[str, dict[str, Any]] = {
    "scratch": {"model__scratch": True},
    "scratch, tied, new tokens": {
        "model__backbone": "tiny-gpt2",
        "model__scratch": True,
        "model__tokens": ("<a>", "<b>"),
    },
    "pretrained": {"model__tokens": ("<a>",), "model__image": IMAGE},
    "stored in bf16": {"model__backbone": "bf16", "model__tokens": ("<a>",)},
    "lora": {"tune__stage": "lora", "tune__lora": {"r": 2}, "model__tokens": ("<a>",)},
    "lora on bf16": {"model__backbone": "bf16", "model__dtype": "bfloat16", "tune__stage": "lora"},
    "a folder": {"model__start": "started"},
}


def prepare(folder: Path) -> None:
    """A backbone whose files are in bf16, and a multimodal folder to go on from."""
    backbone = load_backbone("tiny-llama2", dtype="bfloat16")
    backbone.save(folder / "bf16")
    model = Model(backbone, {"image": new_part(backbone, PatchEncoder(16, image_size=16, patch_size=8))})
    model.save(folder / "started")


def run_of(folder: Path, name: str) -> Any:
    changes = dict(STARTS[name])
    for key in ("model__backbone", "model__start"):
        if changes.get(key) in ("bf16", "started"):
            changes[key] = str(folder / changes[key])
    return config(**changes, parallel__kind="fsdp")


def built(run: Any, *, late: bool) -> Any:
    model, waiting = build_late(run) if late else (build_model(run), None)
    choose(model, run.tune, seed=run.seed)
    return model, waiting


def equal(folder: Path) -> None:
    """What is different, by kind of start."""
    found: dict[str, list[str]] = {}
    for name in STARTS:
        run = run_of(folder, name)
        whole = dict(built(run, late=False)[0].named_parameters())
        model, waiting = built(run, late=True)
        assert waiting is not None or "lora" in name
        learner = shard(Learner(model, late=waiting), run, CPU, dist.get_world_size())
        wrong = []
        for parameter_name, parameter in learner.model.named_parameters():
            expected, full = whole[parameter_name], parameter.full_tensor()
            if full.dtype != expected.dtype or not torch.equal(full, expected):
                wrong.append(parameter_name)
            if parameter.requires_grad != expected.requires_grad:
                wrong.append(f"{parameter_name} trains")
        found[name] = wrong + sorted(set(whole) ^ set(dict(learner.model.named_parameters())))
    if dist.get_rank() == 0:
        (folder / "different.json").write_text(json.dumps(found))


def memory(folder: Path) -> None:
    """The highest memory of parameters in each process while a model starts in shards, as a share of the whole."""
    found = {}
    large = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 12}
    stored = folder / "large"
    if dist.get_rank() == 0:
        load_backbone("tiny-llama2", inference_mode=True)  # its files are made by one process
        run = config(model__scratch=True, model__overrides=large, model__dtype="bfloat16")
        build_model(run).backbone.save(stored)
    dist.barrier()
    for name, changes in (
        ("scratch", {"model__scratch": True, "model__overrides": large}),
        ("pretrained", {"model__backbone": str(stored)}),
    ):
        gc.collect()
        run = config(**changes, parallel__kind="fsdp")
        with Allocated() as seen:
            model, waiting = built(run, late=True)
            learner = shard(Learner(model, late=waiting), run, CPU, dist.get_world_size())
        whole = sum(p.numel() * p.element_size() for p in learner.parameters())
        found[name] = seen.peak / whole
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, found)
    if dist.get_rank() == 0:
        (folder / "memory.json").write_text(json.dumps(everyone))


def from_file(address: int) -> bool:
    """Whether an address lies in a mapped checkpoint: such pages are the file's own, and shared by all processes."""
    with open("/proc/self/maps") as file:
        for line in file:
            first, last = (int(number, 16) for number in line.split(" ", 1)[0].split("-"))
            if first <= address < last:
                return line.rstrip().endswith(".safetensors")
    return False


class Allocated(torch.utils._python_dispatch.TorchDispatchMode):
    """Bytes of storages that operations make, mapped files and the meta device apart; the highest sum of those alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, kinds: Any, arguments: Any = (), options: Any = None) -> Any:
        import weakref

        known = {v.untyped_storage()._cdata for v in arguments if isinstance(v, torch.Tensor)}
        out = function(*arguments, **(options or {}))
        for value in out if isinstance(out, (list, tuple)) else (out,):
            if not isinstance(value, torch.Tensor) or value.is_meta or type(value) is not torch.Tensor:
                continue
            storage = value.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in known or key in self.seen or from_file(storage.data_ptr()):
                continue
            self.seen.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)
        return out

    def _gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size
