"""What a run needs, on paper: memory a GPU, the sharding that fits, tokens a second, days and cost.

    one process   a rehearsed step (weights, gradients, activations, logits, its peak) + two states of AdamW
    ddp           everything on every GPU, and a copy of the gradients to send
    fsdp          weights, gradients and states shared out; two layers at a time whole
    + checkpointing   activations of one layer at a time, and the inputs of all

It knows numbers; nothing is allocated and nothing is downloaded but a config.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vertebra.backbone.weights import parameters_on_meta
from vertebra.compat import enable_checkpointing
from vertebra.errors import ConfigError, MissingPartError
from vertebra.train.config import RunConfig
from vertebra.train.rehearsal import Rehearsal, rehearse
from vertebra.train.shapes import shape_of
from vertebra.tune.choose import TuneConfig, choose
from vertebra.tune.parts import parts_of

GB = 1e9
# What a CUDA context and its libraries take, and what the allocator cannot use.
CONTEXT, FRAGMENTS = 0.8 * GB, 0.05
GPUS_A_NODE = 8


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to lay the run out, and the bytes that it takes on each GPU."""

    name: str
    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    other: float
    """Gathered layers, copies for communication, the context."""
    peak: float
    checkpointing: bool = False

    def fits(self, memory: float) -> bool:
        return self.peak <= memory


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer."""

    model: str
    stage: str
    gpus: int
    memory: float
    rows: int
    length: int
    parameters: int
    trained: int
    layouts: tuple[Layout, ...]
    chosen: str | None
    """The first layout that fits; None: none does."""
    tokens_per_second: float
    tokens: float | None
    days: float | None
    cost: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan(
    config: RunConfig,
    *,
    gpus: int = 1,
    memory: float = 80.0,
    mfu: float = 0.4,
    flops: float = 989e12,
    tokens: float | None = None,
    price: float | None = None,
    context: bool = True,
) -> Plan:
    """Plan a recipe. `memory` in GB a GPU, `flops` of one GPU in its precision, `price` of a GPU hour.

    `context=False` leaves out what a GPU's own libraries take.
    """
    if gpus < 1 or memory <= 0 or not 0 < mfu <= 1 or flops <= 0:
        raise ConfigError("a plan needs gpus >= 1, memory > 0, 0 < mfu <= 1 and flops > 0")
    length = config.data.block or min(config.model.max_length, 2048)
    seen = rehearsal_of(config, length)
    layouts = tuple(_layouts(config, seen, length, gpus, context))
    chosen = next((layout for layout in layouts if layout.fits(memory * GB)), None)
    per_token = flops_a_token(config, seen, length, checkpointing=bool(chosen and chosen.checkpointing))
    speed = gpus * flops * mfu / per_token
    days = tokens / speed / 86400 if tokens else None
    return Plan(
        model=config.model.backbone,
        stage=config.tune.stage,
        gpus=gpus,
        memory=memory * GB,
        rows=config.optim.batch,
        length=length,
        parameters=seen.parameters,
        trained=seen.trained_parameters,
        layouts=layouts,
        chosen=chosen.name if chosen else None,
        tokens_per_second=speed,
        tokens=tokens,
        days=days,
        cost=days * 24 * gpus * price if days is not None and price is not None else None,
    )


def rehearsal_of(config: RunConfig, length: int, *, checkpointing: bool = False, sharded: bool = False) -> Rehearsal:
    """One step of this run on one process, rehearsed. `sharded`: layers are gathered in 16 bits where bf16 is asked
    for, while autocast would keep a copy of every weight until the backward."""
    bf16 = config.optim.precision == "bf16"
    model = meta_model(config)
    if sharded and bf16:
        model.to(torch.bfloat16)
    if checkpointing or config.optim.checkpointing:
        model.enable_input_require_grads()
        enable_checkpointing(model)
    # packed rows are full; of chats about a third is supervised
    share = 0.35 if config.data.kind == "chat" else 1.0
    layers = parts_of(model).layers
    rows = config.optim.batch
    return rehearse(model, layers, rows=rows, length=length, supervised=share, bf16=bf16 and not sharded)


def meta_model(config: RunConfig) -> Any:
    """The language model of a recipe without weights, what trains chosen."""
    model_cls, shape = shape_of(config.model.backbone, config.model.overrides)
    dtype = getattr(torch, config.model.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise ConfigError(f"model.dtype `{config.model.dtype}` is no type of torch")
    with parameters_on_meta():
        model = model_cls._from_config(shape, dtype=dtype)
        model.train()
        choose(model, _on_the_language_model(config.tune))
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()  # PEFT keeps adapters in fp32
    return model


def _on_the_language_model(tune: TuneConfig) -> TuneConfig:
    """Stages of encoders and projectors, whose own memory is small beside the language model's."""
    if tune.stage in ("align", "none"):
        return TuneConfig(stage="last-blocks", blocks=1)
    if tune.stage == "vla-sandwich-train":
        return TuneConfig(stage="last-layer-finetune")
    return TuneConfig(stage=tune.stage, blocks=tune.blocks, lora=tune.lora)


def _layouts(config: RunConfig, seen: Rehearsal, length: int, gpus: int, context: bool) -> list[Layout]:
    nodes = [GPUS_A_NODE] if gpus > GPUS_A_NODE else []
    ways = [("ddp" if gpus > 1 else "one GPU", 1), *(("fsdp in a node", n) for n in nodes)]
    ways += [("fsdp", gpus)] if gpus > 1 else []
    made = []
    known = {(config.optim.checkpointing, False): seen}  # a rehearsal of 7 B takes seconds
    for name, shards in ways:
        for checkpointing in (True,) if config.optim.checkpointing else (False, True):
            kind = (checkpointing, shards > 1)
            if kind not in known:
                known[kind] = rehearsal_of(config, length, checkpointing=checkpointing, sharded=shards > 1)
            step = known[kind]
            full = f"{name}, checkpointing" if checkpointing else name
            made.append(_layout(full, seen, step, shards, gpus > 1, context))
    return made


def _layout(name: str, whole: Rehearsal, step: Rehearsal, shards: int, several: bool, context: bool) -> Layout:
    """`whole` has the weights as they are kept, `step` what is alive while they are used."""
    states = 2 * whole.trained
    gathered = 2 * step.layer if shards > 1 else 0
    sent = whole.trained if several and shards == 1 else 0  # DDP's buckets
    # activations, logits and what the backward needs at its highest point, gradients apart
    inside = max(step.peak - step.weights - step.trained, 0)
    backward = (whole.weights + states + whole.trained) / shards + inside
    update = (whole.weights + states + whole.trained) / shards  # fused: no temporaries
    fixed = CONTEXT if context else 0.0
    peak = (max(backward, update) + gathered + sent) * (1 + FRAGMENTS if context else 1) + fixed
    return Layout(
        name=name,
        weights=whole.weights / shards,
        gradients=whole.trained / shards,
        optimizer=states / shards,
        activations=step.activations,
        logits=step.head,
        other=gathered + sent + fixed,
        peak=peak,
        checkpointing="checkpointing" in name,
    )


def flops_a_token(config: RunConfig, seen: Rehearsal, length: int, *, checkpointing: bool) -> float:
    """Forward 2 a parameter; backward 2 for the way through, and 2 where the weight itself trains."""
    shape = shape_of(config.model.backbone, config.model.overrides)[1]
    attention = 2 * shape.num_hidden_layers * shape.hidden_size * length  # QKᵀ and AV, half of them masked
    forward = 2 * seen.parameters + attention
    total = 2 * forward + 2 * seen.trained_parameters + attention
    return total + forward if checkpointing else total


def picture(made: Plan, path: Path) -> Path:
    """The layouts as stacked bars, beside the memory that there is."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPartError("the plan's picture", "matplotlib", "train") from None
    figure = Figure(figsize=(8, 0.6 * len(made.layouts) + 1.6), layout="constrained")
    axes = figure.add_subplot()
    names = [layout.name for layout in made.layouts]
    left = [0.0] * len(names)
    for part in ("weights", "gradients", "optimizer", "activations", "logits", "other"):
        sizes = [getattr(layout, part) / GB for layout in made.layouts]
        axes.barh(names, sizes, left=left, label=part)
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    axes.plot([layout.peak / GB for layout in made.layouts], names, "k|", markersize=16, label="peak")
    axes.axvline(made.memory / GB, color="red", linestyle="--", label=f"{made.memory / GB:g} GB")
    axes.set_xlabel("GB a GPU")
    axes.set_xlim(0, min(max(left), 4 * made.memory / GB) * 1.05)
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    return path
