"""Whether a run fits into this very machine: its plan, held against the memory that is here, before anything is loaded."""

from __future__ import annotations

import os

import torch

from vertebra import log
from vertebra.training.config import RunConfig
from vertebra.training.planning.plan import Layout, plan

GB = 1e9


def log_budget(config: RunConfig, world: int) -> None:
    """Say what a step takes, part by part; warn where that is more than there is."""
    on_gpu = torch.cuda.is_available()
    there = memory_here()
    made = plan(config, gpus=world, memory=there / GB, context=on_gpu)
    layout = own_layout(made.layouts, config, world)
    parts = ("weights", "gradients", "optimizer", "activations", "logits")
    parts_text = ", ".join(f"{part} {getattr(layout, part) / GB:.2f}" for part in parts)
    where = "a GPU" if on_gpu else "this machine's memory"
    log.info(f"memory plan: {layout.peak / GB:.2f} of {there / GB:.0f} GB of {where} ({parts_text})")
    if not layout.fits(there):
        log.warn(
            f"a step is planned to take {layout.peak / GB:.1f} GB, and {where} has {there / GB:.1f}. Lower optim.batch or "
            "data.block, set optim.checkpointing=true, train less (LoRA), or shard; `vertebra plan` compares"
        )


def own_layout(layouts: tuple[Layout, ...], config: RunConfig, world: int) -> Layout:
    """The one that the config itself asks for, among those that a plan compares."""
    sharded = config.parallel.kind == "fsdp" and world > 1
    own = [
        layout
        for layout in layouts
        if layout.checkpointing == config.optim.checkpointing and layout.name.startswith("fsdp") == sharded
    ]
    return own[-1]


def memory_here() -> float:
    """Bytes of a GPU, or of the machine where there is none."""
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
