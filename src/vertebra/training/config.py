"""What a run is made of: frozen dataclasses, written as a YAML recipe and saved resolved beside the weights.

Combinations that cannot work are refused here, before anything loads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from vertebra.config import Amount, Bound, Count, Filled, Place, Share, Some, require_bounds
from vertebra.errors import ConfigError
from vertebra.tasks.config import DataConfig
from vertebra.tasks.registry import faults_of, task_named, task_of
from vertebra.tasks.task import Task
from vertebra.tune.settings import TuneConfig

Precision = Literal["fp32", "bf16", "fp16", "auto"]


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How images enter: an encoder, a projector, and where their embeddings stand."""

    encoder: Literal["patches", "stem", "vision"] = "patches"
    """`patches`: one convolution; `stem`: a few, with key points; both are made from scratch. `vision`: a tower."""
    name: Place | None = None
    """For `vision`: a pretrained vision model, by id or folder."""
    block: int = -2
    """For `vision`: the block whose features are taken: 1, 2 … from the first, -1, -2 … from the last."""
    pool: Some = 1
    """For `vision`: squares of so many patches across share a slot."""
    width: Some = 64
    """For `patches` and `stem`."""
    image_size: Some | None = None
    """The side of the square that images are made into; for `patches` 32, for `stem` 64, for `vision` what it ships."""
    patch_size: Some = 8
    """For `patches`."""
    grid: Some = 4
    """For `stem`: so many tokens across."""
    points: Count = 32
    """For `stem`: key points, which share one more token; 0: none."""
    channels: Some = 32
    """For `stem`: of the first convolution."""
    each: bool = False
    """An encoder of its own for every camera, in place of one that all share."""
    projector: Literal["linear", "gelu2", "gelu3"] = "gelu2"

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model is trained."""

    backbone: Place
    """An id, a folder or a hub name; for masked data an encoder."""
    tiny: Place = "tiny-llama2"
    """What `--tiny` puts in its place."""
    scratch: bool = False
    """Draw new weights; configuration and tokenizer stay."""
    init: Literal["own", "matching"] = "own"
    """How new weights begin: by the model's own rules, or so that attention matches equals and hands them on."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings of the model's own config, as in `num_hidden_layers: 4`."""
    max_length: Some = 2048
    tokens: tuple[str, ...] = ()
    """Tokens to add to the vocabulary; nobody's text becomes one unless it is trusted."""
    words: tuple[str, ...] = ()
    """Words to add to the vocabulary: each is one token from then on, in any text."""
    builder: str | None = None
    """A prompt builder by name, in place of the backbone's own; `bare` for a model from scratch."""
    image: ImageConfig | None = None
    start: Place | None = None
    """A model folder to start from (an aligned projector), in place of `backbone`."""
    attn: str | None = None
    dtype: str = "float32"
    """What weights are kept in. Optimizers need fp32 to move them by small steps; frozen bases may be bfloat16."""
    quantization: Literal["int8", "nf4"] | None = None

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Steps: how large, how many, how exact."""

    kind: Literal["adamw", "muon"] = "adamw"
    """`muon`: orthogonal steps for hidden matrices, AdamW for the rest; small models from scratch learn in fewer steps."""
    lr: Amount = 2e-5
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Amount = 0.03
    """Steps, or below 1 a share of all steps."""
    floor: Annotated[float, Bound(least=0, most=1)] = 0.0
    """Where the schedule ends, as a share of `lr`."""
    weight_decay: Amount = 0.0
    """Never on norms, biases and single vectors."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    eps: Annotated[float, Bound(above=0)] = 1e-8
    clip: Amount = 1.0
    """The largest gradient norm; 0: none."""
    batch: Some = 8
    """Rows of one micro-batch on one rank."""
    accumulate: Some = 1
    precision: Precision = "fp32"
    """Autocast; weights stay what `model.dtype` says. `auto`: bf16 where this machine multiplies faster in it."""
    checkpointing: bool = False
    """Recompute activations in the backward pass."""

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """What a frozen part computes, computed once and kept in the user's cache."""

    tower: bool = False
    """The features of a frozen image encoder, once an image."""
    layers: bool = False
    """The hidden states behind the frozen lower layers, once a sample: a step then costs the layers that train."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The loss."""

    label_smoothing: Share = 0.0
    z_loss: Amount = 0.0
    fused: bool = True
    """Head and loss in one; False: the model's own head, on supervised positions."""
    function: str | None = None
    """`package.module:function` of (outputs, batch, num_items), in place of the loss."""

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluation, the best checkpoint, early stopping."""

    every: Count = 0
    """Steps between evaluations; 0: none, but for one at the end."""
    batches: Count = 0
    """At most so many batches; 0: all."""
    patience: Count = 0
    """Stop after so many evaluations without a better loss; 0: never."""

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """Checkpoints."""

    every: Count = 0
    """Steps between checkpoints; 0: only at the end, and when the run is stopped."""
    keep: Some = 2
    """How many to keep, the best apart."""
    asynchronous: bool = True
    """Write in the background; the step waits for a copy in memory alone."""

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """What is seen of a run. `metrics.jsonl` is always written."""

    every: Some = 10
    """Steps between rows of metrics."""
    bar: bool = True
    """The live display, where a terminal is."""
    report: bool = True
    """At the end, `report.html` and its pictures; `vertebra report FOLDER` makes them at any time."""
    report_to: Literal["none", "wandb", "tensorboard", "trackio"] = "none"
    samples: tuple[str, ...] = ()
    """Prompts that are answered before and after the training, for the report."""
    sample_tokens: Some = 48
    """How long an answer may be."""

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Several processes."""

    kind: Literal["ddp", "fsdp"] = "ddp"
    hybrid: Count = 0
    """For `fsdp`: shard inside groups of so many ranks, and keep copies between them; 0: shard over all."""
    whole_gradients: bool = False
    """For `fsdp` with accumulation: send gradients once a step, at the price of keeping them whole on every rank."""

    def __post_init__(self) -> None:
        require_bounds(self)
        if self.kind != "fsdp" and (self.hybrid or self.whole_gradients):
            raise ConfigError(
                "parallel.hybrid and parallel.whole_gradients are of fsdp; give parallel.kind=fsdp as well"
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, whole."""

    name: Annotated[str, Filled(line=True, most=200)]
    """A folder is called so: one line, and no longer than file systems take."""
    model: ModelConfig
    data: DataConfig
    tune: TuneConfig = field(default_factory=TuneConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    steps: Some | None = None
    epochs: Annotated[float, Bound(above=0)] | None = None
    seed: Annotated[int, Bound(least=0, most=2**32 - 1)] = 0
    out: Place | None = None
    """Where everything goes; `runs/<name>` by default."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What becomes of a step whose loss or gradient is not finite, or whose loss explodes."""
    explodes: Amount = 0.0
    """A loss above so many times the running mean counts as exploding; 0: never."""

    def __post_init__(self) -> None:
        require_bounds(self)
        faults = list(_contradictions(self))
        if faults:
            raise ConfigError("; ".join(faults))

    @property
    def folder(self) -> str:
        return self.out or f"runs/{self.name}"

    @property
    def task(self) -> Task:
        """The kind of work that `data.kind` names."""
        return task_of(self.data)


def _contradictions(run: RunConfig) -> Sequence[str]:
    found = []
    if (run.steps is None) == (run.epochs is None):
        given = "neither" if run.steps is None else "both"
        found.append(f"`steps` and `epochs` say how long a run is; {given} is given. Give one of them")
    if run.model.quantization and run.parallel.kind == "fsdp":
        found.append("fsdp cannot shard a quantized model (`model.quantization`); use ddp, or no quantization")
    if run.model.quantization and run.tune.stage != "lora":
        found.append(f"a quantized model trains through adapters alone; stage is `{run.tune.stage}`, expected `lora`")
    if run.model.dtype in ("float16", "fp16") and run.tune.stage not in ("lora", "none"):
        found.append("weights kept in float16 cannot be trained; keep them in float32 with optim.precision=fp16")
    if run.tune.stage == "words" and (run.parallel.kind == "fsdp" or run.cache.layers or run.loss != LossConfig()):
        found.append(
            "stage `words` runs no language model and has a loss of its own; leave out `loss`, cache.layers and fsdp"
        )
    if run.tune.only_new_rows and run.parallel.kind == "fsdp":
        found.append(
            "fsdp shards a table's rows, and `tune.only_new_rows` cannot tell which they are; use ddp, or stage `lora`"
        )
    if run.optim.kind == "muon" and run.parallel.kind == "fsdp":
        found.append(
            "optim.kind=muon makes the step of a matrix from the whole of it, and with fsdp each rank holds a shard; use ddp, "
            "or optim.kind=adamw"
        )
    try:
        task = task_named(run.data.kind)
    except ConfigError as error:
        found.append(f"data: {error}")
    else:
        found += [*(f"data: {fault}" for fault in faults_of(task, run.data)), *_unfit(task, run)]
    if run.model.start and run.model.scratch:
        found.append("`model.start` and `model.scratch` contradict each other")
    if run.model.init != "own" and not run.model.scratch:
        found.append(
            f"`model.init: {run.model.init}` is how new weights begin, and none are drawn; add model.scratch=true"
        )
    if run.model.start and run.model.builder:
        found.append("`model.start` writes prompts as it was trained to; leave `model.builder` out")
    return found


def _unfit(task: Task, run: RunConfig) -> Iterator[str]:
    """What a kind of work and a model cannot do together."""
    if (run.cache.tower or run.cache.layers) and (run.parallel.kind == "fsdp" or task.for_encoder):
        yield "`cache` is for language models that every rank holds whole; leave it out with fsdp and encoders"
    if (run.cache.tower or run.cache.layers) and run.data.stream:
        yield "`cache` computes every sample once before the training, and a stream's are not known then"
    if task.for_encoder and run.tune.stage == "lora":
        yield "encoders are trained in full or by patterns; stage `lora` is for language models"
    if task.for_encoder and run.model.builder:
        yield f"`model.builder` is for language models; {run.data.kind} data has no prompts"
    if task.for_encoder and run.model.init != "own":
        yield f"`model.init` is for language models; leave it out for {run.data.kind} data"
    if task.for_encoder and run.model.overrides:
        yield f"`model.overrides` is for language models; name another encoder for {run.data.kind} data"
    for part in task.needs:
        if run.model.start is None and getattr(run.model, part, None) is None:
            yield f"kind `{run.data.kind}` needs a model with a part `{part}`; give the model `{part}` settings"
