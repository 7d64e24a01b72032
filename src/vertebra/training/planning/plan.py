"""What a run needs, on paper: memory a GPU, the sharding that fits, tokens a second, days and cost.

    one process   a rehearsed step (weights, gradients, activations, logits, its peak) + two states of AdamW
    ddp           everything on every GPU, and a copy of the gradients to send
    fsdp          weights, gradients and states shared out; two layers at a time whole, and what is no layer
    + checkpointing   activations of one layer at a time, and the inputs of all

It knows numbers; nothing is allocated and nothing is downloaded but a config.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vertebra.compat import enable_checkpointing
from vertebra.config import Bound
from vertebra.data.encode.masked_model import context_of
from vertebra.errors import ConfigError, MissingPartError, UnknownNameError, VertebraError, shortened
from vertebra.folders import named_file
from vertebra.training.config import RunConfig
from vertebra.training.planning.outline import depths, outline
from vertebra.training.planning.rehearsal import Rehearsal, deeper, rehearse
from vertebra.training.planning.shapes import shape_of

GB = 1e9
# What a CUDA context and its libraries take, and what the allocator cannot use.
CONTEXT, FRAGMENTS = 0.8 * GB, 0.05
GPUS_A_NODE = 8
BOUNDS = {
    "gpus": Bound(least=1, most=10**6),
    "memory": Bound(above=0),
    "mfu": Bound(above=0, most=1),
    "flops": Bound(least=1e6, most=1e21),
    "tokens": Bound(above=0, most=1e18),
    "price": Bound(least=0),
    "images": Bound(least=0, most=10**6),
}
"""What the numbers of a plan may be."""


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
    outside: int
    """Of these, in encoders and projectors."""
    trained: int
    images: int
    """Items of every encoder in a row; 0 where there is none."""
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
    images: int = 1,
    context: bool = True,
) -> Plan:
    """Plan a recipe. `memory` in GB a GPU, `flops` of one GPU in its precision, `price` of a GPU hour, `images` a row.

    `context=False` leaves out what a GPU's own libraries take.
    """
    _require(gpus=gpus, memory=memory, mfu=mfu, flops=flops, tokens=tokens, price=price, images=images)
    length = config.data.block or min(config.model.max_length, _context(config))
    with _impossible(config, length):
        slots = outline(config, depth=_shallow(config)).slots
    images = images if slots else 0
    if slots * images > length:
        raise ConfigError(
            f"{images} images take {slots * images} positions of a row of {length}; set data.block or --images"
        )
    with _impossible(config, length):
        seen = rehearsal_of(config, length, images=images)
        layouts = tuple(_layouts(config, seen, length, gpus, context, images))
    chosen = next((layout for layout in layouts if layout.fits(memory * GB)), None)
    recomputed = bool(chosen and chosen.checkpointing)
    per_token = flops_a_token(config, seen, length, checkpointing=recomputed, seen_share=slots * images / length)
    speed = gpus * flops * mfu / per_token
    days = tokens / speed / 86400 if tokens is not None else None
    return Plan(
        model=config.model.backbone,
        stage=config.tune.stage,
        gpus=gpus,
        memory=memory * GB,
        rows=config.optim.batch,
        length=length,
        parameters=round(seen.parameters),
        outside=round(seen.outside),
        trained=round(seen.trained_parameters),
        images=images,
        layouts=layouts,
        chosen=chosen.name if chosen else None,
        tokens_per_second=speed,
        tokens=tokens,
        days=days,
        cost=days * 24 * gpus * price if days is not None and price is not None else None,
    )


def _require(**given: float | None) -> None:
    """All numbers of a plan that cannot be, in one error; comparisons alone would let NaN pass."""
    faults = [
        f"{name} is {value}; expected {BOUNDS[name]}"
        for name, value in given.items()
        if value is not None and not BOUNDS[name].holds(value)
    ]
    if given["price"] is not None and given["tokens"] is None:
        faults.append("price is given without tokens: what a run costs follows from how many tokens it trains on")
    if faults:
        raise ConfigError("a plan cannot be made: " + "; ".join(faults))


@contextmanager
def _impossible(config: RunConfig, length: int) -> Iterator[None]:
    """A shape that no model has (a width of 0, -1 layers, 10**18 rows) fails deep inside of what builds it."""
    try:
        yield
    except VertebraError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = shortened(str(error).splitlines()[0] if str(error) else "")
        raise ConfigError(
            f"`{config.model.backbone}` with model.overrides={config.model.overrides}, {config.optim.batch} rows (optim.batch) "
            f"of {length} positions, cannot be: {type(error).__name__}: {reason}"
        ) from error


def _shallow(config: RunConfig) -> int | None:
    known = depths(config)
    return known[0] if known is not None else None


def rehearsal_of(
    config: RunConfig, length: int, *, checkpointing: bool = False, sharded: bool = False, images: int = 1
) -> Rehearsal:
    """One step of this run on one process, rehearsed: of a deep model from two shallow ones. `sharded`: layers are
    gathered in 16 bits where bf16 is asked for, while autocast would keep a copy of every weight until the backward."""

    def at(depth: int | None) -> Rehearsal:
        return _rehearsed(config, length, depth, checkpointing=checkpointing, sharded=sharded, images=images)

    known = depths(config)
    if known is None:
        return at(None)
    low, high, depth = known
    return deeper(at(low), at(high), (low, high), depth)


def _rehearsed(
    config: RunConfig, length: int, depth: int | None, *, checkpointing: bool, sharded: bool, images: int
) -> Rehearsal:
    bf16 = config.optim.precision in ("bf16", "auto")  # a GPU of today
    model = outline(config, depth=depth)
    if sharded and bf16:
        model.to(torch.bfloat16)
    if checkpointing or config.optim.checkpointing:
        enable_checkpointing(model.backbone.llm)
        for part in model.encoded:
            setattr(part.encoder, "recompute", True)  # noqa: B010 - a setting of those that have it
    return rehearse(
        model.backbone.llm,
        model.backbone.layers,
        rows=config.optim.batch,
        length=length,
        supervised=config.task.supervised,
        bf16=bf16 and not sharded,
        parts=model.encoded if images else (),
        images=images,
        whole=model,
        keep_gradients=not sharded,
    )


def _layouts(
    config: RunConfig, seen: Rehearsal, length: int, gpus: int, context: bool, images: int
) -> Iterator[Layout]:
    nodes = [GPUS_A_NODE] if gpus > GPUS_A_NODE else []
    ways = [("ddp" if gpus > 1 else "one GPU", 1), *(("fsdp in a node", n) for n in nodes)]
    ways += [("fsdp", gpus)] if gpus > 1 else []
    known = {(config.optim.checkpointing, False): seen}
    for name, shards in ways:
        for again in (True,) if config.optim.checkpointing else (False, True):
            kind = (again, shards > 1)
            if kind not in known:
                known[kind] = rehearsal_of(config, length, checkpointing=again, sharded=shards > 1, images=images)
            full = f"{name}, checkpointing" if again else name
            yield _layout(full, seen, known[kind], shards, gpus > 1, context)


def _layout(name: str, whole: Rehearsal, step: Rehearsal, shards: int, several: bool, context: bool) -> Layout:
    """`whole` has the weights as they are kept, `step` what is alive while they are used."""
    states = 2 * whole.trained
    kept = whole.weights + states
    gathered = sent = 0.0
    if shards == 1:
        sent = whole.trained if several else 0.0  # DDP's buckets
        update = kept + whole.trained  # fused: no temporaries
        highest = max(kept + max(step.phases), update)
    else:
        # what is no layer stays whole; but for the head's phase, so do the layer at work and the next one, and in the
        # backward the gradients of a layer are on their way
        forward, head, *backward = step.phases
        two = 2 * step.layer
        inside = max(forward + two, head, max(backward) + two + step.layer_trained)
        gathered = inside - max(step.phases) + step.rest
        highest = (kept + whole.trained) / shards + max(step.phases)
    fixed = CONTEXT if context else 0.0
    return Layout(
        name=name,
        weights=whole.weights / shards,
        gradients=whole.trained / shards,
        optimizer=states / shards,
        activations=step.activations,
        logits=step.head,
        other=gathered + sent + fixed,
        peak=(highest + gathered + sent) * (1 + FRAGMENTS if context else 1) + fixed,
        checkpointing="checkpointing" in name,
    )


def _context(config: RunConfig) -> int:
    """Positions of a row that no setting limits: an encoder has a table of them and cannot read beyond it."""
    if not config.task.for_encoder:
        return 2048
    return context_of(shape_of(config.model.backbone, config.model.overrides, masked=True)[1])


def flops_a_token(
    config: RunConfig, seen: Rehearsal, length: int, *, checkpointing: bool, seen_share: float = 0.0
) -> float:
    """Forward 2 a parameter; backward 2 for the way through, and 2 where the weight itself trains. Encoders and projectors
    work on their own share of the positions, and their backward is run where they train."""
    shape = shape_of(config.model.backbone, config.model.overrides, masked=config.task.for_encoder)[1]
    attention = 2 * shape.num_hidden_layers * shape.hidden_size * length  # QKᵀ and AV, half of them masked
    forward = 2 * (seen.parameters - seen.outside) + attention
    total = 2 * forward + 2 * (seen.trained_parameters - seen.outside_trained) + attention
    total += seen_share * (2 * seen.outside + 4 * seen.outside_trained)
    return total + forward if checkpointing else total


def picture(made: Plan, path: Path) -> Path:
    """The layouts as stacked bars with their peaks, beside the memory that there is."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPartError("the plan's picture", "matplotlib", "train") from None
    figure = Figure(figsize=(9, 0.55 * len(made.layouts) + 2.2), layout="constrained")
    axes = figure.add_subplot()
    names = [layout.name for layout in made.layouts]
    memory, peaks = made.memory / GB, [layout.peak / GB for layout in made.layouts]
    right = 1.15 * min(max(memory, *peaks), 4 * memory)
    left = [0.0] * len(names)
    for part in ("weights", "gradients", "optimizer", "activations", "logits", "other"):
        sizes = [getattr(layout, part) / GB for layout in made.layouts]
        axes.barh(names, sizes, left=left, label=part)
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    for place, peak in enumerate(peaks):
        outside = peak > 0.88 * right  # its end is not in the picture: the number says it
        where, side = (0.99 * right, "right") if outside else (peak + 0.01 * right, "left")
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
        axes.text(
            where,
            place,
            f"peak {peak:,.{1 if peak < 100 else 0}f} GB{' →' * outside}",
            va="center",
            ha=side,
            fontsize=8,
            bbox=box,
        )
        axes.plot([peak], [place], "k|", markersize=18)
    axes.axvline(memory, color="red", linestyle="--", label=f"{memory:g} GB")
    axes.set_xlim(0, right)
    axes.set_xlabel("GB a GPU")
    axes.set_title(
        f"{made.model}, {made.stage}: {made.rows} × {made.length} positions a GPU, GPUs: {made.gpus}",
        fontsize=10,
        parse_math=False,
    )
    axes.invert_yaxis()
    figure.legend(fontsize=8, loc="outside lower center", ncols=7)
    return _saved(figure, path)


def _saved(figure: Any, path: Path) -> Path:
    """Write a figure in the form that the suffix says, PNG where there is none; never beside the name that was given."""
    form = path.suffix[1:].lower() or "png"
    known = figure.canvas.get_supported_filetypes()
    if form not in known:
        raise UnknownNameError("kind of picture", form, known, hint=f"The suffix of `{path}` says it; png will do.")
    with named_file(path), path.open("wb") as file:  # given a name without suffix, matplotlib would write another one
        figure.savefig(file, dpi=110, format=form)
    return path
